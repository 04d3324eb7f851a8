"""Where a run comes from, as config.json says it: command, commit, device and date of its first start."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import jax

UNKNOWN = "unknown"
FIELDS = ("command", "commit", "device", "date")
CHECKOUT = Path(__file__).resolve().parents[2]


def here() -> dict[str, str]:
    """This process's `command` (unknown where it is not the command line's), `commit`, `device` and `date` (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    return {"command": command(sys.argv), "commit": commit(), "device": device(), "date": f"{now:%Y-%m-%d %H:%M} UTC"}


def command(arguments: list[str]) -> str:
    """The shell command of a process of `lotto-jax run` with these arguments."""
    return shlex.join(["lotto-jax", *arguments[1:]]) if arguments[1:2] == ["run"] else UNKNOWN


def commit(checkout: Path = CHECKOUT) -> str:
    """The commit of the package's checkout, and whether its code was changed since; unknown outside of one."""
    if not (checkout / ".git").exists():
        return UNKNOWN
    head = _git(checkout, "rev-parse", "--short=12", "HEAD")
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", "lotto_jax", "configs")
    return f"{head}, with changes" if head and changed else head or UNKNOWN


def device() -> str:
    """Kind and number of this run's devices."""
    devices = jax.devices()
    kind = f"{os.cpu_count()} CPU cores, {platform.machine()}" if devices[0].platform == "cpu" else None
    return f"{len(devices)} x {devices[0].device_kind}" + (f" ({kind})" if kind else "")


def _git(checkout: Path, *arguments: str) -> str:
    """What git says; nothing where there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
