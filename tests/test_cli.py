"""The command line: quick, helpful, and with an exit status that can be trusted."""

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from lotto_jax import __version__, cli

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
        (
            ["--config=configs/quickstart.py", "--config.imp.rounds=many"],
            "config.imp.rounds is 'many', but it takes a int, such as ",
        ),
        (["--config=configs/quickstart.py", "--config.imp.rounds=-1"], "config.imp.rounds is -1"),
        (["--config=configs/quickstart.py", "--config.dataset.name=nothing"], "No prepared dataset 'nothing'"),
        (["--config=configs/linear_ae_mnist.py:rewind9"], "configs/linear_ae_mnist.py: there is no variant 'rewind9'"),
        (["--config=configs/quickstart.py:cpu"], "configs/quickstart.py has no variants, but 'cpu' is asked for"),
        (["--config=configs/quickstart.py", "--config.optimizer.learning_rate=-0.1"], "learning_rate is -0.1; it must"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_1(tmp_path, arguments, message):
    result = lotto_jax("run", *arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 1, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) == 1


MISSPELT = """from lotto_jax import config


def get_config():
    config_ = config.default()
    config_.train.epoch = 3
    return config_
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has no function get_config"),
        ("def get_config(:\n", "line 1: "),
        ("import nothing_of_the_kind\n", "imports what is not there (No module named 'nothing_of_the_kind')"),
        ("def get_config():\n    return {}['a']\n", ", line 2, fails with KeyError: a"),
        (MISSPELT, 'line 6, fails with AttributeError: \'Key "epoch" does not exist'),
        ("def get_config():\n    return 3\n", "returns a int; it has to return a ConfigDict"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence_that_names_it(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.py") as error:
        cli.load_config(str(file), [])
    assert message in str(error.value) and "\n" not in str(error.value) and "<run_path>" not in str(error.value)


def test_the_version_is_that_of_the_package():
    assert lotto_jax("--version").stdout == f"lotto-jax {version('lotto_jax')}\n"
    assert __version__ == version("lotto_jax")


def test_an_unknown_argument_is_status_2(tmp_path):
    result = lotto_jax("run", "--config=configs/quickstart.py", f"--workdir={tmp_path}", "--fast")
    assert result.returncode == 2 and "'--fast'" in result.stderr


def test_run_and_report_end_with_status_0_and_divergence_with_1(tmp_path, capsys):
    tiny = [
        "--config=configs/quickstart.py",
        "--config.train.epochs=1",
        "--config.imp.rounds=1",
        "--config.seeds=(0, 1)",
        "--config.imp.arms=('winning', 'random')",
        "--config.imp.one_shot_sparsities=()",
        "--config.evaluation.images=0",
    ]
    run = lotto_jax("run", *tiny, f"--workdir={tmp_path / 'run'}")
    assert run.returncode == 0, run.stderr
    assert "report.html" in run.stdout and "winning" in run.stdout
    with pytest.raises(SystemExit) as end:
        cli.main(["report", f"--workdir={tmp_path / 'run'}"])
    assert not end.value.code and "report.html" in capsys.readouterr().out
    diverged = lotto_jax("run", *tiny, "--config.optimizer.learning_rate=1e38", f"--workdir={tmp_path / 'bad'}")
    assert diverged.returncode == 1 and "Training diverged" in diverged.stderr and "Traceback" not in diverged.stderr


def test_report_of_nothing_is_status_1(tmp_path):
    result = lotto_jax("report", f"--workdir={tmp_path}")
    assert result.returncode == 1 and "no results" in result.stderr
