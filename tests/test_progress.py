"""Progress of long work: bars and lines where somebody watches, whole lines where it goes into a file."""

import os
import pty
import subprocess
import sys
import termios

from lotto_jax import progress

PROGRAM = """
from lotto_jax import progress
with progress.bar(total=3, desc="steps", mininterval=0, maxinterval=0) as bar:
    for _ in range(3):
        bar.update()
"""
LINES = """
from lotto_jax import progress
lines = progress.Lines(["a", "b"])
for name, text in (("a", "waiting"), ("b", "waiting"), ("b", "waiting"), ("b", "running"), ("b", "done")):
    lines.show(name, text)
lines.close()
"""


def on_a_terminal(program):
    """What a program writes on one of 24 lines of 80 characters."""
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run([sys.executable, "-c", program], stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(reader, 4096):
            shown += part
    except OSError:  # Linux says so where the other side is closed
        pass
    os.close(reader)
    return shown


def test_faults_of_the_system_are_a_sentence_with_a_remedy(capsys):
    progress.fault(PermissionError(13, "Permission denied", "/data/mnist"))
    progress.fault(OSError("Could not write /runs/a; make room there."))
    assert capsys.readouterr().err.splitlines() == [
        "lotto-jax: /data/mnist cannot be used (Permission denied); correct that, or choose another place.",
        "lotto-jax: Could not write /runs/a; make room there.",
    ]


def test_a_terminal_shows_one_bar_that_moves():
    shown = on_a_terminal(PROGRAM)
    assert b"steps: 100%" in shown and b"3/3" in shown
    assert shown.count(b"\r") >= 3 and shown.count(b"\n") == 1


def test_a_pipe_gets_whole_lines():
    shown = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, check=True, timeout=60).stderr
    assert b"\r" not in shown and shown.endswith(b"\n") and b"3/3" in shown.splitlines()[-1]
    assert len(shown.splitlines()) <= 2  # not one for every update


def test_a_terminal_shows_one_line_for_each_thing():
    screen, row = {}, 0  # what is left on the screen, as a terminal would draw it
    for part in on_a_terminal(LINES).replace(b"\x1b[A", b"\v").decode().replace("\r\n", "\n"):
        if part in "\n\v":
            row += 1 if part == "\n" else -1
        elif part == "\r":
            screen[row] = ""
        else:
            screen[row] = screen.get(row, "") + part
    assert [screen[row].strip() for row in sorted(screen) if screen[row].strip()] == ["a: waiting", "b: done"]


def test_a_pipe_gets_a_line_for_every_change():
    shown = subprocess.run([sys.executable, "-c", LINES], stderr=subprocess.PIPE, check=True, timeout=60).stderr
    assert shown.decode().splitlines() == ["a: waiting", "b: waiting", "b: running", "b: done"]
