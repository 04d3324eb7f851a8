"""Searches on diffusions and flows: of points, end to end, and the promises that the average of params has to keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.experiments import build
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.objectives import averaging
from lotto_jax.runs import kept, tickets
from lotto_jax.runs.results import read as read_results
from lotto_jax.tickets import of_run
from lotto_jax.training import loop, mesh, packing, stacks
from tests import tiny

FLOW = {"name": "flow_matching", "sample_steps": 2, "likelihood_steps": 2, "ema": 0.9}


def config(**fields):
    settings = {
        "dataset__name": "mixture",
        "dataset__train_examples": 1270,
        "model": {"name": "mlp", "width": 8, "depth": 2},
        "objective": FLOW,
        "imp__rounds": 1,
        "imp__fraction": 0.75,
        "imp__arms": ("winning",),  # as many tickets as dense networks, so that one program trains both
        "evaluation__batch_size": 2048,
        "metrics__names": ("energy_distance",),
        "metrics__samples": 150,
        "checkpoint__every_seconds": 60.0,
    }
    return tiny.config(**(settings | fields))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "run"
    run(config(), path)
    return path


def test_a_flow_of_points_is_searched_measured_and_reported(searched):
    results = read_results(searched)
    levels = {f"loss_level_{i}" for i in range(1, 5)}
    assert {r.metric for r in results} == {"loss", "bits_per_dim", "energy_distance_150", *levels}
    assert {r.arm for r in results} == {"dense", "winning"}
    assert all(np.isfinite(r.value) for r in results)
    text = write(searched)
    assert "energy_distance_150" in text and "samples.png" not in text  # points are no pictures


def test_the_average_of_a_pruned_weight_is_zero_in_what_a_run_keeps(searched):
    with kept.opened(searched) as phases:
        state = phases.restore(1)
    leaves = jax.tree.leaves(state["params"]), jax.tree.leaves(state["model_state"][averaging.COLLECTION])
    kernels = [(np.asarray(p), np.asarray(a)) for p, a in zip(*leaves, strict=True) if p.ndim > 2]
    assert sum((p == 0).sum() for p, _ in kernels) == pytest.approx(0.75 * sum(p.size for p, _ in kernels), rel=0.01)
    for params, average in kernels:
        np.testing.assert_array_equal(average == 0, params == 0)


def test_a_ticket_as_a_file_has_the_average_that_it_starts_from(searched):
    [ticket] = of_run(searched, [name for name in tickets.names(searched) if "winning" in name][:1])
    average = ticket.model_state[averaging.COLLECTION]
    assert jax.tree.structure(average) == jax.tree.structure(ticket.params)
    assert not np.array_equal(*map(lambda tree: jax.tree.leaves(tree)[1], (average, ticket.params)))


def test_the_all_true_ticket_from_the_snapshot_is_the_original_run_bit_for_bit():
    chosen = config()
    objective = build.objective(chosen, (1, 1, 2))
    image = np.random.default_rng(0).normal(size=(320, 1, 1, 2)).astype(np.float32)
    data = jax.tree.map(jnp.asarray, packing.pack(image, np.zeros(320, np.int32)))
    states = loop.init(objective, jnp.arange(2, dtype=jnp.uint32), jnp.uint32(0))
    mask = jax.vmap(pruning.ones)(states.params)

    def train(states, start, stop):
        copied = jax.tree.map(jnp.copy, states)
        options = {"batch_size": 31, "length": 12, "mesh": mesh.make(2, 31, among=jax.devices()[:1])}
        return loop.train(objective, copied, mask, data, jnp.int32(start), jnp.int32(stop), **options)[0]

    snapshot = train(states, 0, 5)
    whole, ticket = train(states, 0, 12), train(stacks.masked(snapshot, mask), 5, 12)
    tiny.assert_same(whole, ticket)
    without = snapshot._replace(model_state={averaging.COLLECTION: snapshot.params})
    lost = train(without, 5, 12)
    assert not np.array_equal(*(jax.tree.leaves(s.model_state)[0] for s in (whole, lost)))


def test_tickets_of_a_flow_start_a_diffusion_with_the_same_masks(searched, tmp_path):
    settings = {"experiment": "transfer", "imp__arms": ("winning", "transfer"), "metrics__names": ()}
    objective = {"name": "diffusion", "noise_steps": 10, "sample_steps": 2, "ema": 0.9}
    chosen = config(objective=objective, imp__rewind_step=3, **settings)
    chosen.transfer.source = str(searched)
    run(chosen, tmp_path / "run")
    found = {r.arm: r for r in read_results(tmp_path / "run") if r.metric == "loss" and r.seed == 0}
    assert found["transfer"].sparsity == found["winning"].sparsity == pytest.approx(0.75, abs=0.01)
    with kept.opened(tmp_path / "run") as phases:
        own, names = phases.restore(1), [t.arm for t in kept.tickets_of(phases, 1)]
    with kept.opened(searched) as phases:
        source = phases.restore(1)
    first = names.index("transfer")
    zero = lambda tree, i: [np.asarray(x)[i] == 0 for x in jax.tree.leaves(tree) if x.ndim > 2]  # noqa: E731
    for a, b in zip(zero(own["model_state"]["ema"], first), zero(source["params"], 0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_points_are_packed_as_they_are():
    image = np.random.default_rng(0).normal(size=(5, 1, 1, 2)).astype(np.float32)
    packed = packing.pack(image, np.arange(5, dtype=np.int32))
    np.testing.assert_array_equal(jax.jit(packing.unpack)(packed).image, image)


def test_what_points_cannot_do_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"'frechet', which looks at images, but mixture has points; leave it out"):
        run(config(metrics__names=("frechet",)), tmp_path / "run")
    with pytest.raises(ValueError, match=r"image_size is set, but the mixture has points"):
        run(config(dataset__image_size=8), tmp_path / "run")
    with pytest.raises(ValueError, match=r"'elbo', but mlp is trained by 'diffusion' \(or 'flow_matching'\); leave"):
        run(config(objective={"name": "elbo"}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"sampler is 'heun'; a diffusion takes ddpm or ddim"):
        run(config(objective={"name": "diffusion", "sampler": "heun"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
