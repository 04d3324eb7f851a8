"""Real processes, really killed: whatever is interrupted, the same command ends with the same results, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lotto_jax.runs.results import read as read_results

CONFIG = Path(__file__).with_name("interrupted_config.py")


def start(workdir):
    """The command line in a process of its own. Chunks of 10 steps or more, a save after each."""
    command = "from lotto_jax.cli import main; main()"
    one_device = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "").strip()
    environment = {**os.environ, "XLA_FLAGS": one_device}
    return subprocess.Popen(
        [sys.executable, "-c", command, "run", f"--config={CONFIG}", f"--workdir={workdir}"],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workdir):
    process = start(workdir)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return
        time.sleep(0.002)
    process.kill()
    raise AssertionError(
        "the run ended, or took too long, before the moment to interrupt it: " + process.communicate()[0]
    )


def outcome(workdir):
    """Everything that must not depend on interruptions."""
    masks = {p.parent.name: p.read_bytes() for p in sorted((workdir / "tickets").glob("*/mask.safetensors"))}
    files = ("results.csv", "metrics.jsonl", "held_out.jsonl")
    return *((workdir / name).read_bytes() for name in files), masks


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("uninterrupted") / "run"


@pytest.fixture(scope="module")
def uninterrupted(workdir):
    finish(workdir)
    return outcome(workdir)


def saving(workdir):
    """A checkpoint is being written."""
    return any((workdir / "checkpoints").glob("*/*tmp*"))


def scanning(workdir):
    """Round 1 has begun and made points, and no save is under way."""
    log = workdir / "metrics.jsonl"
    return log.exists() and '"round": 1' in log.read_text() and not saving(workdir)


def test_sigkill_in_a_save_and_in_a_scan(tmp_path, uninterrupted):
    workdir = tmp_path / "run"
    for moment in (saving, scanning):
        process = start(workdir)
        wait_for(lambda moment=moment: moment(workdir), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(workdir)
    assert outcome(workdir) == uninterrupted


def compiling(workdir):
    """The directory is claimed, and the first program is not compiled yet: no chunk has been logged."""
    return (workdir / "config.json").exists() and (workdir / "checkpoints" / "snapshots").exists()


@pytest.mark.parametrize(("moment", "number"), [(compiling, signal.SIGTERM), (scanning, signal.SIGINT)])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, uninterrupted, moment, number):
    """SIGTERM, and Ctrl-C, which is SIGINT."""
    workdir = tmp_path / "run"
    process = start(workdir)
    wait_for(lambda: moment(workdir), process)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + number, output
    assert "the state is saved, and the same command goes on" in output and "Traceback" not in output
    assert "\r" not in output  # progress in a pipe is whole lines
    if moment is scanning:  # a damaged newest checkpoint costs time, not results
        chunks = workdir / "checkpoints" / "chunks"
        newest = max((p for p in chunks.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:100])
        assert "Going back to the one before" in finish(workdir)
    else:
        finish(workdir)
    assert outcome(workdir) == uninterrupted


def test_the_second_run_in_a_directory_is_refused_while_the_first_goes_on(tmp_path):
    workdir = tmp_path / "run"
    first = start(workdir)
    wait_for(lambda: (workdir / "config.json").exists(), first)
    second = start(workdir)
    output = second.communicate(timeout=120)[0]
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert "Another run is using" in output and "Traceback" not in output


def test_a_finished_run_is_left_alone_and_reported_again(workdir, uninterrupted):
    times = json.loads((workdir / "config.json").read_text())
    output = finish(workdir)
    assert "report.html" in output and outcome(workdir) == uninterrupted
    assert json.loads((workdir / "config.json").read_text()) == times
    assert len(read_results(workdir)) == 2 + 4 + 4
