"""Several configurations at once: a queue of processes, and the real thing, interrupted and gone on."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from lotto_jax import cli
from lotto_jax.experiments import report, sweep
from lotto_jax.experiments.sweep import Job
from lotto_jax.runs.files import write_sealed
from lotto_jax.training import shares
from lotto_jax.training.preemption import Preemption
from tests import tiny

ROOT = Path(__file__).parents[2]
# In place of a run: it takes a moment, writes down where and when it was, and fails if its name says so.
RUN = """
import json, os, pathlib, sys, time
options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
path = pathlib.Path(options["workdir"])
begin = time.monotonic()
time.sleep(60 if "slow" in path.name else 0.2)
if "bad" in path.name:
    sys.exit("lotto-jax: config.seeds is (); it takes one or more different integers.")
path.mkdir(exist_ok=True)
gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
record = {"begin": begin, "end": time.monotonic(), "gpus": gpus, "options": options}
(path / "record.json").write_text(json.dumps(record))
"""


@pytest.fixture
def gpus(monkeypatch):
    """A host with four GPUs, as far as a sweep can tell, whose runs are `RUN`."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sweep, "COMMAND", (sys.executable, "-c", RUN))
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(shares, "look", lambda distributed, root: shares.Host("gpu", (0, 1, 2, 3), 0, 1))


def jobs(*names, **fields):
    return [Job(f"{name}.py", ["--config.imp.rounds=2"], tiny.config(**fields)) for name in names]


def record(path):
    return json.loads((path / "record.json").read_text())


def test_runs_share_the_devices_and_a_failure_stops_no_other(tmp_path, gpus, capfd):
    names = ("a", "b", "bad", "c", "d")
    failed = sweep.run(jobs(*names), tmp_path, 2, Preemption())
    sentence = f"config.seeds is (); it takes one or more different integers. ({tmp_path / 'bad.log'})"
    assert failed == {"bad": sentence}
    found = {name: record(tmp_path / name) for name in names if name != "bad"}
    assert {own["gpus"] for own in found.values()} == {"0,1", "2,3"}
    for name, own in found.items():
        for other, theirs in found.items():
            apart = own["end"] <= theirs["begin"] or theirs["end"] <= own["begin"]
            assert name == other or own["gpus"] != theirs["gpus"] or apart
    options = found["a"]["options"]
    assert options["config.imp.rounds"] == "2" and options["config.distributed.coordinator"] == "off"
    shown = capfd.readouterr().err.splitlines()
    assert [line for line in shown if line.startswith("bad:")] == [
        "bad: waiting",
        next(line for line in shown if line.startswith("bad: running on gpu ")),
        f"bad: failed: {sentence}",
    ]
    assert f"d: done, {tmp_path / 'd' / 'report.html'}" in shown


def test_a_damaged_small_file_costs_no_run(tmp_path, gpus):
    """Of a run that goes on it says nothing, and a run that was finished is started once more."""
    (tmp_path / "a").mkdir()
    write_sealed(tmp_path / "a" / "progress.json", '{"done": 1, "phases": 3, "last": "round 1"}')
    (tmp_path / "a" / "progress.json").write_text('{"done": 1')
    assert sweep.run(jobs("a"), tmp_path, 0, Preemption()) == {}
    begin = record(tmp_path / "a")["begin"]
    (tmp_path / "a" / "finished.json").write_text('{"seeds": [0')
    assert sweep.run(jobs("a"), tmp_path, 0, Preemption()) == {}
    assert record(tmp_path / "a")["begin"] > begin


def test_a_finished_run_is_left_alone_until_its_configuration_changes(tmp_path, gpus):
    sweep.run(jobs("a"), tmp_path, 0, Preemption())
    first = record(tmp_path / "a")
    sweep.run(jobs("a", distributed__timeout=5.0), tmp_path, 0, Preemption())
    assert record(tmp_path / "a") == first
    sweep.run(jobs("a", metrics__samples=20), tmp_path, 0, Preemption())
    assert record(tmp_path / "a")["begin"] > first["begin"]


def test_every_host_takes_its_part(tmp_path, gpus, monkeypatch):
    for process in range(2):
        host = shares.Host("gpu", (0,), process, 2)
        monkeypatch.setattr(shares, "look", lambda distributed, root, host=host: host)
        assert sweep.run(jobs("a", "b", "c"), tmp_path / str(process), 0, Preemption()) == {}
    made = [sorted(path.parent.name for path in (tmp_path / str(p)).glob("*/record.json")) for p in range(2)]
    assert made == [["a", "c"], ["b"]]


def test_a_signal_reaches_all_runs_and_nothing_else_begins(tmp_path, gpus):
    preemption = Preemption()
    threading.Timer(0.5, lambda: setattr(preemption, "requested", True)).start()
    begin = time.monotonic()
    assert sweep.run(jobs("slow1", "slow2", "later"), tmp_path, 2, preemption) == {}
    assert time.monotonic() - begin < 30 and not (tmp_path / "later.log").exists()


def test_a_run_that_is_killed_is_a_failure(tmp_path, gpus, monkeypatch):
    monkeypatch.setattr(sweep, "COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    failed = sweep.run(jobs("a"), tmp_path, 0, Preemption())
    assert failed == {"a": f"It was killed by signal 9. ({tmp_path / 'a.log'})"}


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"imp__pruned": ("both", "encoder")}, 8),  # 2 seeds, 2 arms
        ({"imp__one_shot_sparsities": (0.5, 0.6, 0.7)}, 6),
        ({"imp__rounds": 0}, 2),
        ({"experiment": "one_shot", "imp__one_shot_sparsities": (0.5, 0.9, 0.95)}, 6),
        ({"experiment": "early_bird"}, 2),
        ({"experiment": "dense"}, 2),
    ],
)
def test_tickets_of_the_largest_phase(fields, count):
    assert sweep.tickets(tiny.config(**fields)) == count


CONFIG = """
from tests import tiny


def get_config(variant=""):
    return tiny.config(seeds=(0,), imp__arms=("winning",) if variant == "" else ("random",))
"""


@pytest.fixture
def sweep_file(tmp_path):
    """A sweep file with two configurations, the second of which cannot run."""
    (tmp_path / "mine.py").write_text(CONFIG)
    (tmp_path / "sweep.txt").write_text(f"# two\n\n{tmp_path}/mine.py  # good\n{tmp_path}/mine.py:bad\n")
    return tmp_path / "sweep.txt"


@pytest.fixture
def run_command(monkeypatch, capfd):
    """`lotto-jax run` in this process, on a CPU; returns its exit status and what it wrote on stderr."""
    monkeypatch.setattr(shares, "look", lambda distributed, root: shares.Host("cpu", (0,), 0, 1))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["run", *arguments])
        return ended.value.code, capfd.readouterr().err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def interrupt_once(file):
    """SIGTERM to this process as soon as there is a file."""
    end = time.monotonic() + 200
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_a_sweep_is_interrupted_and_goes_on(tmp_path, sweep_file, run_command):
    root = tmp_path / "root"
    command = [f"--sweep={sweep_file}", f"--workdir={root}", "--config.imp.rounds=1"]
    interruption = threading.Thread(target=interrupt_once, args=[root / "mine" / "config.json"])
    interruption.start()
    status, said = run_command(*command)
    interruption.join()
    assert status == 143 and "the same command goes on" in said.splitlines()[-1], said
    assert "Preempted" in (root / "mine.log").read_text() and not (root / "mine-bad.log").exists()
    status, said = run_command(*command)
    (sentence,) = [line for line in said.splitlines() if line.startswith("lotto-jax: ")]
    assert status == 1 and sentence.startswith("lotto-jax: mine-bad: config.imp.arms must hold 'winning'")
    assert f"mine: done, {root / 'mine' / 'report.html'}" in said
    assert report.write(root) == f"mine: all phases done, {root / 'mine' / 'report.html'}"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--config=mine.py", "--config=mine.py"], 1, "mine.py and mine.py would both run in mine; leave one out"),
        (["--config=mine.py", "--sweep=none.txt"], 1, "none.txt"),
        (["--sweep=mine.py", "--share=-1"], 2, "--share is -1; it takes a number of devices"),
        (["--sweep=empty.txt"], 1, "--sweep is empty.txt, which lists no configuration"),
        (["--config=mine.py", "--share=2"], 2, "--share divides the devices among several configurations"),
        ([], 2, "run needs --config or --sweep"),
        (["--config=mine.py", "--config=mine.py:x", "--config.imp.round=3"], 1, "did you mean config.imp.rounds?"),
        (["--config=mine.py", "--config=mine.py:x", "--config.imp.rounds=-3"], 1, "mine.py: config.imp.rounds is -3"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_a_mistake_is_one_sentence(sweep_file, monkeypatch, run_command, arguments, status, sentence):
    monkeypatch.chdir(sweep_file.parent)
    Path("empty.txt").write_text("# nothing\n")
    ended, said = run_command("--workdir=root", *arguments)
    assert ended == status and sentence in said.splitlines()[-1] and not Path("root").exists()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_overrides_go_to_the_configurations_that_have_the_field(sweep_file, monkeypatch):
    (sweep_file.parent / "other.py").write_text(CONFIG.replace("imp__arms", "model={'name': 'vae'}, imp__arms"))
    sources = [str(sweep_file.parent / name) for name in ("mine.py", "other.py")]
    latent, rounds = "--config.model.latent=4", "--config.imp.rounds=7"
    mine, other = cli._jobs(sources, [latent, rounds])
    assert (mine.overrides, other.overrides) == ([latent, rounds], [rounds])
    assert mine.config.model.latent == 4 and other.config.imp.rounds == 7
