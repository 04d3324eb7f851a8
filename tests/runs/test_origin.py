"""Where a run comes from."""

import subprocess

from lotto_jax.runs import origin


def test_the_command_can_be_given_to_a_shell_again():
    assert origin.command(["x/lotto-jax", "run", "--config=a.py", "--config.seeds=(0, 1)"]) == (
        "lotto-jax run --config=a.py '--config.seeds=(0, 1)'"
    )
    assert origin.command(["pytest", "tests"]) == origin.UNKNOWN


def test_the_commit_says_whether_code_was_changed_since(tmp_path):
    git = lambda *a: subprocess.run(  # noqa: E731
        ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *a],
        check=True,
        capture_output=True,
        text=True,
    )
    assert origin.commit(tmp_path) == origin.UNKNOWN
    git("init")
    (tmp_path / "lotto_jax").mkdir()
    (tmp_path / "lotto_jax" / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "a")
    head = git("rev-parse", "HEAD").stdout[:12]
    assert origin.commit(tmp_path) == head
    (tmp_path / "lotto_jax" / "a.py").write_text("2")
    assert origin.commit(tmp_path) == f"{head}, with changes"
