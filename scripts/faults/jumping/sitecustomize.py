"""Imported by every Python process that has this directory on its path: its wall clock is set again and again.

Only the wall clock, as on a machine: nothing sets the monotonic one. It is set after a time and not after so many
readings, so that code that reads it twice in a row sees what it would see on a machine.
"""

import os
import random
import time

_chance = random.Random(os.environ.get("JUMPING_SEED", "0"))
_true, _elapsed = time.time, time.monotonic
_shift, _next = 0.0, 0.0


def _jumping() -> float:
    global _shift, _next
    if _elapsed() >= _next:
        _shift, _next = _chance.uniform(-7200, 7200), _elapsed() + _chance.uniform(0, 0.2)
    return _true() + _shift


time.time = _jumping
