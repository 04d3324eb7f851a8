"""The command line: quick, helpful, and with an exit status that can be trusted."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lotto_jax(*arguments, **options):
    code = "from lotto_jax.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=200, **options
    )


def test_help_answers_in_under_a_second_without_jax():
    code = (
        "import sys; from lotto_jax import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: assert 'jax' not in sys.modules"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
    assert "lotto-jax run --config=configs/quickstart.py" in result.stdout
    assert min(times) < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/nowhere.py"], "no configuration file 'configs/nowhere.py'"),
        (
            ["--config=configs/quickstart.py", "--config.imp.round=3"],
            "config.imp.round is not a field of configs/quickstart.py; did you mean config.imp.rounds?",
        ),
        (["--config=configs/quickstart.py", "--config.imp.rounds=many"], "many"),
        (["--config=configs/quickstart.py", "--config.imp.rounds=-1"], "config.imp.rounds is -1"),
        (["--config=configs/quickstart.py", "--config.dataset.name=nothing"], "No prepared dataset 'nothing'"),
        (["--config=configs/linear_ae_mnist.py:rewind9"], "no variant 'rewind9'"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_1(tmp_path, arguments, message):
    result = lotto_jax("run", *arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 1, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_argument_is_status_2(tmp_path):
    result = lotto_jax("run", "--config=configs/quickstart.py", f"--workdir={tmp_path}", "--fast")
    assert result.returncode == 2 and "'--fast'" in result.stderr


def test_run_and_report_end_with_status_0_and_divergence_with_1(tmp_path):
    tiny = [
        "--config=configs/quickstart.py",
        "--config.train.epochs=1",
        "--config.imp.rounds=1",
        "--config.seeds=(0, 1)",
        "--config.imp.arms=('winning', 'random')",
        "--config.imp.one_shot_sparsities=()",
    ]
    run = lotto_jax("run", *tiny, f"--workdir={tmp_path / 'run'}")
    assert run.returncode == 0, run.stderr
    assert "report.html" in run.stdout and "winning" in run.stdout
    report = lotto_jax("report", f"--workdir={tmp_path / 'run'}")
    assert report.returncode == 0 and "report.html" in report.stdout
    diverged = lotto_jax("run", *tiny, "--config.optimizer.learning_rate=1e38", f"--workdir={tmp_path / 'bad'}")
    assert diverged.returncode == 1 and "Training diverged" in diverged.stderr and "Traceback" not in diverged.stderr


def test_report_of_nothing_is_status_1(tmp_path):
    result = lotto_jax("report", f"--workdir={tmp_path}")
    assert result.returncode == 1 and "no results" in result.stderr
