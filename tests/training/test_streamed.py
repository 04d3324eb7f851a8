"""A data set that does not fit on the device trains to the same bits as one that does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.data import sources, streaming
from lotto_jax.experiments import build
from lotto_jax.experiments.run import run
from lotto_jax.pruning import global_prune, magnitude, ones
from lotto_jax.training import loop, mesh, packing
from lotto_jax.training.stacks import masked
from tests import tiny

BATCH, N = 64, 333  # five steps an epoch, and a rest


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_streamed_batches_train_to_the_same_bits_as_resident_data(shape):
    """Two tickets of one seed and one of another (twice), across epochs, in calls that begin inside a chunk."""
    objective = build.objective(tiny.config(), (8, 8, 1))
    on = jax.sharding.Mesh(np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape), ("ticket", "data"))
    split = sources.load("digits", train_examples=N).train
    seeds, order = jnp.asarray([0, 1, 0, 1], jnp.uint32), jnp.asarray([0, 1, 0, 1])
    states = loop.init(objective, seeds, jnp.uint32(0))
    mask = jax.vmap(lambda p: global_prune(magnitude(p), ones(p), 0.5))(states.params)
    bounds = ((2, 9), (9, 12), (12, 16))

    def train(data_of):
        current, logs = jax.device_put((masked(states, mask), mask), mesh.by_ticket(on))[0], []
        placed = jax.device_put(mask, mesh.by_ticket(on))
        for start, stop in bounds:
            data = jax.device_put(data_of(start), mesh.replicated(on))
            options = {"batch_size": BATCH, "length": 16, "mesh": on}
            current, log, _ = loop.train(objective, current, placed, data, jnp.int32(start), jnp.int32(stop), **options)
            logs.append(log["loss"])
        return current, logs

    def chunk(start):
        first = 2 if start < 12 else 12
        numbers = loop.example_numbers(states.key[:2], jnp.int32(first), steps=10, n=N, batch_size=BATCH)
        return loop.Streamed(packing.pack(*(a[np.asarray(numbers)] for a in split)), jnp.int32(first), order)

    resident = packing.pack(*split)
    tiny.assert_same(train(chunk), train(lambda start: resident))


def test_a_streamed_search_gives_the_results_of_a_resident_one_and_reports_its_stall(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 2 * 127 * 64 * 5)  # five steps of both seeds; a ticket trains for 22
    fields = {"imp__rounds": 1, "report__tolerance": 0.1}
    run(tiny.config(**fields), tmp_path / "resident")
    assert "for data" not in capsys.readouterr().out
    run(tiny.config(**fields, dataset__device_budget_mb=0.0), tmp_path / "streamed")
    assert "The device waited" in capsys.readouterr().out
    for name in ("results.csv", "metrics.jsonl"):
        assert (tmp_path / "streamed" / name).read_text() == (tmp_path / "resident" / name).read_text()
