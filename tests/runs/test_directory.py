"""The run directory: locked, refusing other configurations, and atomic."""

import json
from pathlib import Path

import numpy as np
import pytest

from lotto_jax.data.dataset import Dataset, Split
from lotto_jax.runs import curves, files, results
from lotto_jax.runs.directory import RunDirectory, RunDirectoryError, config_of
from lotto_jax.runs.files import DamagedError, read_sealed, write_atomically, write_sealed
from lotto_jax.runs.results import Result
from tests import tiny


def result(seed, value, metric="reconstruction_loss"):
    return Result("imp", "linear_autoencoder", "digits", "both", 1, 0.2, "winning", seed, 22, metric, value)


def test_a_second_run_in_one_directory_is_refused(tmp_path):
    first = RunDirectory(tmp_path / "run", tiny.config())
    with pytest.raises(RunDirectoryError, match="Another run is using"):
        RunDirectory(tmp_path / "run", tiny.config())
    first.close()
    RunDirectory(tmp_path / "run", tiny.config()).close()


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path):
    RunDirectory(tmp_path / "run", tiny.config()).close()
    with pytest.raises(RunDirectoryError) as error:
        RunDirectory(tmp_path / "run", tiny.config(imp__rounds=7, train__epochs=9))
    assert "imp.rounds (2 there, 7 here)" in str(error.value) and "train.epochs (2 there, 9 here)" in str(error.value)


def test_the_data_may_have_moved(tmp_path):
    RunDirectory(tmp_path / "run", tiny.config()).close()
    again = RunDirectory(tmp_path / "run", tiny.config(dataset__data_dir="/elsewhere"))
    assert again.path == tmp_path / "run"
    again.close()


def test_other_data_are_refused_and_the_same_data_elsewhere_are_not(tmp_path):
    def dataset(first):
        image = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
        image[0, 0, 0, 0] = first
        split = Split(image, np.zeros(2, np.int32))
        return Dataset("folder", "", split, Split(image[:0], split.label[:0]), split, (), False)

    RunDirectory(tmp_path / "run", tiny.config(), dataset(0).fingerprint).close()
    RunDirectory(tmp_path / "run", tiny.config(dataset__data_dir="/moved"), dataset(0).fingerprint).close()
    with pytest.raises(RunDirectoryError, match=r"other images or labels than config.dataset.data_dir has now"):
        RunDirectory(tmp_path / "run", tiny.config(dataset__data_dir="/other"), dataset(1).fingerprint)


def test_a_run_of_another_format_is_refused_and_a_damaged_file_named(tmp_path):
    RunDirectory(tmp_path / "run", tiny.config()).close()
    stored = tmp_path / "run" / "config.json"
    content = json.loads(stored.read_text())
    write_sealed(stored, json.dumps({key: value for key, value in content.items() if key != "format"}))
    for opened in (lambda: RunDirectory(tmp_path / "run", tiny.config()), lambda: config_of(tmp_path / "run")):
        with pytest.raises(RunDirectoryError, match=r"another version of lotto_jax \(format 1, here it is 2\)"):
            opened()
    stored.write_text(stored.read_text()[:100])
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        config_of(tmp_path / "run")


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(RunDirectoryError, match="holds other files"):
        RunDirectory(tmp_path, tiny.config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunDirectoryError, match=r"--workdir is \S*thesis\.tex, which is a file; choose a directory"):
        RunDirectory(tmp_path / "thesis.tex", tiny.config())


def test_results_are_appended_and_a_repeated_measurement_is_replaced(tmp_path):
    directory = RunDirectory(tmp_path / "run", tiny.config())
    results.add(directory.path, [result(0, 0.5), result(1, 0.25)])
    results.add(directory.path, [result(1, 0.125), result(2, 1 / 3)])
    rows = results.read(tmp_path / "run")
    assert [(r.seed, r.value) for r in rows] == [(0, 0.5), (1, 0.125), (2, pytest.approx(1 / 3, rel=1e-8))]
    assert rows[0] == result(0, 0.5)
    header = (tmp_path / "run" / "results.csv").read_text().splitlines()[0]
    assert header == "experiment,model,dataset,pruned,round,sparsity,arm,seed,step,metric,value"
    directory.close()


def test_a_repeated_measurement_is_recognized_though_its_sparsity_lost_digits_on_disk(tmp_path):
    directory = RunDirectory(tmp_path / "run", tiny.config())
    for value in (0.5, 0.25):
        results.add(directory.path, [result(0, value)._replace(sparsity=205 / 1024)])
    assert [r.value for r in results.read(tmp_path / "run")] == [0.25]
    directory.close()


def test_a_crash_in_the_first_write_does_not_lock_the_directory(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.tmp").write_text('{"conf')
    RunDirectory(tmp_path / "run", tiny.config()).close()
    assert (tmp_path / "run" / "config.json").exists()


def test_a_run_from_before_a_field_existed_goes_on_with_its_default(tmp_path):
    RunDirectory(tmp_path / "run", tiny.config()).close()
    file = tmp_path / "run" / "config.json"
    stored = json.loads(file.read_text())
    del stored["config"]["precision"]
    write_sealed(file, json.dumps(stored))
    RunDirectory(tmp_path / "run", tiny.config()).close()
    with pytest.raises(RunDirectoryError, match=r"precision \(float32 there, bfloat16 here\)"):
        RunDirectory(tmp_path / "run", tiny.config(precision="bfloat16"))


def test_the_log_is_cut_behind_the_checkpoint_a_run_goes_on_from(tmp_path):
    directory = RunDirectory(tmp_path / "run", tiny.config())
    curves.append(directory.path, ({"position": i, "loss": 1.0} for i in range(5)))
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"position": 5, "lo')  # a crash in the middle of a write
    curves.cut(directory.path, 2, 3)  # what comes after 3 belongs to a phase that is not made again
    assert [p["position"] for p in curves.read(tmp_path / "run")] == [0, 1, 2, 4]
    directory.close()


def change_a_bit(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut_in_half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [change_a_bit, cut_in_half, Path.unlink])
def test_a_damaged_configuration_is_mended_from_its_copy(tmp_path, damage):
    RunDirectory(tmp_path / "run", tiny.config()).close()
    results.add(tmp_path / "run", [result(0, 0.5)])
    file = tmp_path / "run" / "config.json"
    before = file.read_bytes()
    damage(file)
    RunDirectory(tmp_path / "run", tiny.config()).close()
    assert file.read_bytes() == before
    damage(file)
    change_a_bit(tmp_path / "run" / ".config.json.copy")
    with pytest.raises(
        RunDirectoryError, match=r"no config\.json of a run that can be read; choose an empty --workdir"
    ):
        RunDirectory(tmp_path / "run", tiny.config())


@pytest.mark.parametrize("damage", [change_a_bit, cut_in_half])
def test_damaged_results_are_not_taken_for_results(tmp_path, damage):
    results.add(tmp_path, [result(0, 0.5)])
    damage(tmp_path / "results.csv")
    with pytest.raises(DamagedError, match=r"results\.csv is damaged: .* The command of its run mends it"):
        results.read(tmp_path)


def test_a_crash_between_a_checksum_and_its_file_leaves_the_old_file_good(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_sealed(file, "old")
    write = files.write_atomically

    def crashing(path, content):
        if path == file:
            raise KeyboardInterrupt
        write(path, content)

    for content in ("new", "newest"):  # twice, as where a disk stays full
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(files, "write_atomically", crashing)
            write_sealed(file, content)
        assert read_sealed(file) == b"old"
    write_sealed(file, "newer")
    assert read_sealed(file) == b"newer"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "there").write_text("a file, not a directory")
    with pytest.raises(
        OSError, match=r"Could not write .*there/file \(Not a directory\); .* run the same command again"
    ):
        write_atomically(tmp_path / "there" / "file", "new")
    with pytest.raises(OSError, match=r"Could not write .*there/run"):
        RunDirectory(tmp_path / "there" / "run", tiny.config())


@pytest.mark.parametrize("damage", [(b'"loss": 1.5', b'"loss": 3.5'), (b"loss", b"mors"), (b"{", b"\xff")])
def test_a_damaged_line_of_the_curves_costs_no_other(tmp_path, damage):
    curves.append(tmp_path, ({"position": i, "loss": i + 0.5} for i in range(4)))
    file = tmp_path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(*damage) + b"".join(lines[2:]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl has 1 damaged lines"):
        assert [p["loss"] for p in curves.read(tmp_path)] == [0.5, 2.5, 3.5]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)
    assert path.read_text() == "old"
