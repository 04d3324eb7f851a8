"""A data set that does not fit on the device trains to the same bits as one that does."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.data import sources, streaming
from lotto_jax.experiments import build
from lotto_jax.experiments.run import run
from lotto_jax.pruning import global_prune, magnitude, ones
from lotto_jax.training import loop
from lotto_jax.training.feed import Feed
from lotto_jax.training.placement import Placement
from lotto_jax.training.stacks import masked
from tests import tiny

BATCH, N = 64, 333  # five steps an epoch, and a rest
SEEDS = [0, 1, 1, 0, 1, 2, 2, 1]  # on two slices of the ticket axis: two windows of two orders, one of them of both


@pytest.mark.parametrize(("shape", "tickets"), [((1, 1), "sequential"), ((2, 2), "vmap"), ((2, 2), "sharded")])
def test_streamed_batches_train_to_the_same_bits_as_resident_data(shape, tickets, monkeypatch):
    """Across epochs, in calls that begin inside a chunk and end with it."""
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 3 * BATCH * 64 * 4)  # four steps of three orders
    objective = build.objective(tiny.config(), (8, 8, 1))
    devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    placement = Placement(jax.sharding.Mesh(devices, ("ticket", "data")), tickets)
    dataset = sources.load("digits", train_examples=N)
    states = loop.init(objective, jnp.asarray(SEEDS, jnp.uint32), jnp.uint32(0))
    mask = jax.vmap(lambda p: global_prune(magnitude(p), ones(p), 0.5))(states.params)

    def train(streamed):
        current, placed = placement.place((masked(states, mask), mask))
        options = {"batch_size": BATCH, "length": 16, "mesh": placement.mesh, "tickets": tickets}
        step, logs = 2, []
        with contextlib.closing(Feed(dataset._replace(streamed=streamed), BATCH, 20, "test")) as feed:
            for end, data in feed.pieces(states, step, 13, placement):
                for stop in [s for s in (5, 9, 13) if step < s < end] + [end]:
                    bounds = jnp.int32(step), jnp.int32(stop)
                    current, log, _ = loop.train(objective, current, placed, data, *bounds, **options)
                    logs.append(np.asarray(log["loss"])[: stop - step])
                    step = stop
        assert step == 13
        return current, np.concatenate(logs)

    tiny.assert_same(train(True), train(False))


def test_the_data_of_a_stack_that_was_filled_up_are_as_its_program_was_compiled_for():
    """Five tickets on two slices: the sixth is a copy of the fifth, and follows its order."""
    placement = Placement(jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("ticket", "data")), "sharded")
    dataset = sources.load("digits", train_examples=N)._replace(streamed=True)
    states = placement.fill(loop.init(build.objective(tiny.config(), (8, 8, 1)), jnp.arange(5) % 3, jnp.uint32(0)))
    with contextlib.closing(Feed(dataset, BATCH, 20, "test")) as feed:
        outline, _ = feed.outline(5, 3, placement)
        _, data = next(feed.pieces(states, 0, 4, placement))
    for shape, array in zip(jax.tree.leaves(outline[::2]), jax.tree.leaves(data[::2]), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
        assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
    assert data.place.shape == (6,) and data.place[5] == data.place[4]


def test_a_streamed_search_gives_the_results_of_a_resident_one_and_reports_its_stall(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 2 * 127 * 64 * 5)  # five steps of both seeds; a ticket trains for 22
    fields = {"imp__rounds": 1, "report__tolerance": 0.1}
    run(tiny.config(**fields), tmp_path / "resident")
    assert "for data" not in capsys.readouterr().out
    run(tiny.config(**fields, dataset__device_budget_mb=0.0), tmp_path / "streamed")
    assert "The device waited" in capsys.readouterr().out
    for name in ("results.csv", "metrics.jsonl"):
        assert (tmp_path / "streamed" / name).read_text() == (tmp_path / "resident" / name).read_text()
