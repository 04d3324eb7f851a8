"""What a single process can see of the functions for several."""

import jax
import numpy as np
import pytest

from lotto_jax.experiments.run import run
from lotto_jax.runs.directory import RunDirectory, RunDirectoryError
from lotto_jax.training import hosts, mesh
from tests import tiny


def test_a_single_process_is_the_first_and_hears_itself():
    assert hosts.is_first()
    assert hosts.everyones({"a": 1}) == [{"a": 1}] and hosts.told([2.5]) == [2.5]
    assert hosts.first(max, 3, 4) == 4


def test_arrays_that_are_placed_can_be_gathered():
    devices = mesh.make(2, 4)
    keys = jax.vmap(jax.random.key)(np.arange(4, dtype=np.uint32))
    tree = {"keys": keys, "x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}
    placed = hosts.place(tree, mesh.by_ticket(devices))
    assert placed["x"].sharding == mesh.by_ticket(devices)
    tiny.assert_same(hosts.gathered(placed), tree)


@pytest.mark.parametrize(
    ("report", "missing"),
    [
        ("DEADLINE_EXCEEDED: Barrier timed out.\nSome timed out task names:\n1\n\n\nRPC: /Barrier", "Process 1"),
        ("DEADLINE_EXCEEDED: Barrier timed out.\nSome timed out task names:\n1\n3\n12\n\n", "Processes 1, 3 and 12"),
        ("INTERNAL: Barrier failed because: UNAVAILABLE: Task 2 heartbeat timeout. This indicates", "Process 2"),
        ("UNAVAILABLE: Failed to send RPC to coordination service. Either the leader", "Process 0"),
        ("UNKNOWN: of another version", "Another process (UNKNOWN: of another version)"),
    ],
)
def test_the_report_of_the_coordination_service_names_who_is_missing(report, missing):
    assert hosts._missing(report) == missing


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"coordinator": "somewhere"}, "config.distributed.coordinator is 'somewhere'; it takes auto, off, or host:p"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "config.distributed.process is 2, of config.distribut"),
        ({"coordinator": "a:1", "processes": 2}, "cannot be joined"),  # this process computes already
    ],
)
def test_fields_that_make_no_sense_are_refused(tmp_path, fields, sentence):
    jax.devices()
    with pytest.raises(ValueError, match=r"config\.distributed") as error:
        run(tiny.config(**{f"distributed__{name}": value for name, value in fields.items()}), tmp_path / "run")
    assert sentence in str(error.value) and not (tmp_path / "run").exists()


def test_other_processes_are_no_other_configuration(tmp_path):
    RunDirectory(tmp_path / "run", tiny.config(distributed__processes=2, distributed__process=1)).close()
    RunDirectory(tmp_path / "run", tiny.config(distributed__coordinator="off", distributed__timeout=5.0)).close()
    with pytest.raises(RunDirectoryError, match="another configuration"):
        RunDirectory(tmp_path / "run", tiny.config(train__epochs=3))


def test_an_object_store_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirectoryError, match="an object store"):
        run(tiny.config(), "gs://bucket/run")
    assert not list(tmp_path.iterdir())
