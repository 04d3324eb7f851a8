"""Who has come, by the marks of processes that wait for each other."""

import os

import pytest

from lotto_jax.training import hosts, roll
from lotto_jax.training.roll import MARKS, Place, Roll

AUTO = {"coordinator": "auto", "processes": 1, "process": 0}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "16"}, Place(3, 16)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, Place(0, 1)),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c"}, Place(1, 3)),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_COORDINATOR_ADDRESS": "c"}, None),
        ({"JOB_COMPLETION_INDEX": "2"}, Place(2, None)),
        ({"SLURM_PROCID": "", "SLURM_NTASKS": "16"}, None),
    ],
)
def test_the_place_of_a_process_is_what_its_launcher_says(variables, place):
    assert roll.place(AUTO, variables) == place
    assert roll.place({"coordinator": "a:1", "processes": 4, "process": 2}, variables) == Place(2, 4)


def test_the_absent_are_named_and_marks_of_an_earlier_start_do_not_count(tmp_path):
    mine, other = Roll(tmp_path, Place(0, 4), 60.0), Roll(tmp_path, Place(3, 4), 60.0)
    assert (mine.came(), mine.absent()) == (other.came(), other.absent()) == ([0, 3], [1, 2])
    before = (tmp_path / MARKS / "0").stat().st_mtime - 61
    os.utime(tmp_path / MARKS / "3", (before, before))
    assert mine.absent() == [1, 2, 3]
    assert hosts._waited(mine, 60.0).startswith("Processes 1, 2 and 3 did not come within 60 s. Start all")


def test_who_came_is_said_where_nobody_knows_how_many_there_are(tmp_path):
    Roll(tmp_path, Place(0, None), 60.0)
    (tmp_path / MARKS / "0~").write_text("")  # of an editor
    assert "each that came says this" in hosts._waited(Roll(tmp_path, Place(2, None), 60.0), 60.0)
    (tmp_path / MARKS / "0~").unlink()
    assert "Only processes 0 and 2 came" in hosts._waited(Roll(tmp_path, Place(2, None), 60.0), 60.0)


def test_a_process_alone_with_itself_cannot_name_anybody(tmp_path):
    (tmp_path / "file").write_text("")
    unwritable = Roll(tmp_path / "file", Place(0, 2), 60.0)
    assert unwritable.came() == unwritable.absent() == []
    for marks in (None, unwritable):
        assert "each that came says this" in hosts._waited(marks, 60.0)


@pytest.mark.parametrize("holds", [(), ("config.json",)])
def test_marks_go_and_with_them_a_directory_that_nothing_is_in(tmp_path, holds):
    workdir = tmp_path / "runs" / "run"
    first, second = Roll(workdir, Place(0, 2), 60.0), Roll(workdir, Place(1, 2), 60.0)
    for name in holds:
        (workdir / name).write_text("")
    second.withdraw()
    assert first.came() == [0] and workdir.exists()
    first.end()
    assert workdir.exists() == bool(holds) and not (workdir / MARKS).exists()
