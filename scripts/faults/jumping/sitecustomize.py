"""Imported by every Python process that has this directory on its path: its clocks jump, to and fro, by hours."""

import os
import random
import time

_chance = random.Random(os.environ.get("JUMPING_SEED", "0"))


def _jumping(clock, shift=0.0):
    def now():
        nonlocal shift
        if _chance.random() < 0.02:
            shift = _chance.uniform(-7200, 7200)
        return clock() + shift

    return now


time.time = _jumping(time.time)
time.monotonic = _jumping(time.monotonic)
time.perf_counter = _jumping(time.perf_counter)
