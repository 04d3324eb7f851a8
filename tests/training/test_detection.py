"""The search for early-bird tickets in the training loop, on an objective whose scales move as told."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.pruning import channels
from lotto_jax.training import detection, loop, mesh, packing

CHANNELS, STEPS = 40, 60


def moving() -> Objective:
    """Scales that wander less and less, differently for every key."""

    def init(key):
        params = {
            "net": {"norm": {"scale": jax.random.normal(key, (CHANNELS,))}, "w": jnp.ones((2, 2))},
            "other": {"norm": {"scale": jnp.zeros(3)}},
        }
        return TrainState(params, {"batch_stats": {"net": {}}}, (), jnp.int32(0), key)

    def step(state, mask, batch, key):
        scale = state.params["net"]["norm"]["scale"]
        moved = scale + jax.random.normal(key, scale.shape) / (1.0 + state.step.astype(jnp.float32)) ** 1.3
        params = {**state.params, "net": {**state.params["net"], "norm": {"scale": moved}}}
        return state._replace(params=params, step=state.step + 1), {"loss": jnp.sum(moved)}

    return Objective(("net", "other"), init, step, lambda params, model_state, batch, key: {"loss": jnp.float32(0)}, ())


def trained(objective, pieces=(0, STEPS)):
    """The states after the last step, and the logs."""
    states = loop.init(objective, jnp.arange(2, dtype=jnp.uint32), jnp.uint32(0))
    mask = jax.tree.map(lambda x: jnp.ones(x.shape[:1], bool), states.params)
    data = packing.pack(np.zeros((8, 2, 2, 1), np.uint8), np.zeros(8, np.int32))
    logs, scales = [], []
    for start, stop in itertools.pairwise(pieces):
        states, log, _ = loop.train(
            objective,
            states,
            mask,
            data,
            jnp.int32(start),
            jnp.int32(stop),
            batch_size=4,
            length=STEPS,
            mesh=mesh.make(1, 4, devices=1),
            tickets="sequential",
        )
        logs.append({name: np.asarray(x)[: stop - start] for name, x in log.items()})
        scales.append(np.asarray(states.params["net"]["norm"]["scale"]))
    return states, {name: np.concatenate([log[name] for log in logs]) for name in logs[0]}, scales


def test_a_watched_objective_trains_the_same_and_finds_what_the_detector_finds_on_the_host():
    search = detection.Search(("net",), (0.25, 0.7), interval=4, minimum=2)
    objective = moving()
    watched = detection.watch(objective, search)
    steps = tuple(range(0, STEPS + 1, search.interval))
    states, log, _ = trained(watched, (0, 7, 30, STEPS))
    plain, plain_log, scales = trained(objective, steps)
    np.testing.assert_array_equal(states.params["net"]["norm"]["scale"], plain.params["net"]["norm"]["scale"])
    np.testing.assert_array_equal(log["loss"], plain_log["loss"])

    seen = states.model_state[detection.COLLECTION]
    for seed in range(2):
        for c, compression in enumerate(search.compressions):
            masks = [np.asarray(channels.channel_mask({"a": s[seed]}, compression, 2)["a"]) for s in scales]
            assert masks[-1].sum() == CHANNELS - round(CHANNELS * compression)
            np.testing.assert_array_equal(seen.masks["net/norm/scale"][seed, c], masks[-1])
            expected = detection.NOT_FOUND
            for i in range(4, len(masks)):
                distances = [np.mean(masks[i] != old) for old in masks[i - 4 : i]]
                at = steps[i + 1] - 1  # the log's row of the step that made mask i
                assert log[f"mask_distance_{compression:g}"][at, seed] == pytest.approx(max(distances))
                if expected == detection.NOT_FOUND and max(distances) < 0.1:
                    expected = steps[i + 1]
            assert seen.found[seed, c] == expected != detection.NOT_FOUND
            assert (log[f"mask_distance_{compression:g}"][: steps[5] - 1, seed] == 1).all()


def test_components_without_scales_are_refused():
    search = detection.Search(("missing",), (0.5,), interval=1)
    with pytest.raises(ValueError, match="needs a network with batch norm"):
        detection.watch(moving(), search).init(jax.random.key(0))


def test_slimming_adds_the_gradient_of_the_penalty_and_keeps_the_optimizer_state():
    params = {"norm": {"scale": jnp.array([0.5, -2.0, 0.0]), "bias": jnp.ones(3)}, "kernel": jnp.ones((2, 3))}
    grads = jax.tree.map(lambda x: jnp.full_like(x, 0.25), params)
    plain = optax.adam(0.1)
    slim = detection.slimmed(plain, 0.01)
    penalty = jax.grad(lambda p: channels.slimming_penalty(channels.batch_norm_scales(p), 0.01))(params)
    expected = plain.update(jax.tree.map(jnp.add, grads, penalty), plain.init(params), params)
    got = slim.update(grads, slim.init(params), params)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)
