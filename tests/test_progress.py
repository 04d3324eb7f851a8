"""Progress of long work: a bar where somebody watches, whole lines where it goes into a file."""

import os
import pty
import subprocess
import sys
import termios

PROGRAM = """
from lotto_jax import progress
with progress.bar(total=3, desc="steps", mininterval=0, maxinterval=0) as bar:
    for _ in range(3):
        bar.update()
"""


def test_a_terminal_shows_one_bar_that_moves():
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(reader, 4096):
            shown += part
    except OSError:  # Linux says so where the other side is closed
        pass
    os.close(reader)
    assert b"steps: 100%" in shown and b"3/3" in shown
    assert shown.count(b"\r") >= 3 and shown.count(b"\n") == 1


def test_a_pipe_gets_whole_lines():
    shown = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, check=True, timeout=60).stderr
    assert b"\r" not in shown and shown.endswith(b"\n") and b"3/3" in shown.splitlines()[-1]
    assert len(shown.splitlines()) <= 2  # not one for every update
