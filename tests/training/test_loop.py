"""The invariants of the training loop: exact in pieces, vectorized = sequential, fair, and never reviving a weight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax import pruning
from lotto_jax.data import sources
from lotto_jax.experiments import build
from lotto_jax.objectives.state import masked_update
from lotto_jax.training import loop, mesh, packing
from lotto_jax.training.stacks import masked
from tests import tiny

BATCH = 64
ONE = mesh.make(1, BATCH, devices=1)


@pytest.fixture(scope="module")
def objective():
    return build.objective(tiny.config(), (8, 8, 1))


@pytest.fixture(scope="module")
def data():
    return packing.pack(*sources.load("digits").train)


def init(objective, seeds, salt=0):
    return loop.init(objective, jnp.asarray(seeds, jnp.uint32), jnp.uint32(salt))


def dense(states):
    return jax.vmap(lambda p: pruning.ones(p))(states.params)


def sparse(states, fraction):
    return jax.vmap(lambda p: pruning.global_prune(pruning.magnitude(p), pruning.ones(p), fraction))(states.params)


def train(objective, states, mask, data, start, stop, on=None, tickets="vmap"):
    on = on or ONE
    states, mask = jax.device_put((masked(states, mask), mask), mesh.by_ticket(on))
    data = jax.device_put(data, mesh.replicated(on))
    bounds = jnp.int32(start), jnp.int32(stop)
    return loop.train(objective, states, mask, data, *bounds, batch_size=BATCH, length=64, mesh=on, tickets=tickets)


def test_training_in_pieces_is_training_at_once_bit_for_bit(objective, data):
    states = init(objective, [0, 1])
    mask = sparse(states, 0.5)
    whole, log, _ = train(objective, states, mask, data, 0, 50)
    state, logs = states, []
    for start, stop in ((0, 3), (3, 22), (22, 23), (23, 50)):  # an epoch is 22 steps
        state, piece, _ = train(objective, state, mask, data, start, stop)
        logs.append(piece["loss"][: stop - start])
    tiny.assert_same(state, whole)
    np.testing.assert_array_equal(np.concatenate(logs), log["loss"][:50])


def test_zero_sparsity_identity_from_the_full_state_but_not_from_weights_alone(objective, data):
    """The dense ticket from the snapshot is the original run; with a fresh optimizer it is not."""
    states = init(objective, [3])
    original, _, _ = train(objective, states, dense(states), data, 0, 40)
    snapshot, _, _ = train(objective, states, dense(states), data, 0, 10)
    ticket, _, _ = train(objective, snapshot, dense(states), data, 10, 40)
    tiny.assert_same(ticket, original)
    restarted = snapshot._replace(opt_state=states.opt_state)
    other, _, _ = train(objective, restarted, dense(states), data, 10, 40)
    assert not np.array_equal(other.params["decoder"]["dense"]["kernel"], original.params["decoder"]["dense"]["kernel"])


def test_stacked_tickets_train_as_each_would_alone(objective, data):
    states = init(objective, [0, 1, 2])
    mask = sparse(states, 0.3)
    together, log, _ = train(objective, states, mask, data, 0, 30)
    for i in range(3):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], (states, mask))
        alone, own, _ = train(objective, *one, data, 0, 30)
        # Batched and single matmuls may sum in another order: a few float32 roundings over 30 steps of Adam.
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b[0], atol=2e-5), together.params, alone.params)
        np.testing.assert_allclose(log["loss"][:30, i], own["loss"][:30, 0], rtol=1e-4)


def test_a_pruned_weight_stays_zero_whatever_moments_it_comes_with(objective, data):
    states = init(objective, [0, 1])
    snapshot, _, _ = train(objective, states, dense(states), data, 0, 20)  # Adam has moments everywhere
    mask = sparse(snapshot, 0.7)
    end, _, _ = train(objective, snapshot, mask, data, 20, 45)
    for kernel, m in ((end.params[c]["dense"]["kernel"], mask[c]["dense"]["kernel"]) for c in ("encoder", "decoder")):
        assert not np.any(np.asarray(kernel)[~np.asarray(m)])
        assert np.all(np.asarray(kernel)[np.asarray(m)])


def test_masked_update_zeroes_gradient_and_update_under_momentum_and_weight_decay():
    params = {"w": jnp.asarray([[1.0, 0.0]])}
    mask = {"w": jnp.asarray([[True, False]])}
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    opt_state = optimizer.init(params)
    opt_state = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.float32 else x, opt_state)  # stale moments
    params, opt_state = masked_update(optimizer, {"w": jnp.asarray([[1.0, jnp.nan]])}, opt_state, params, mask)
    assert params["w"][0, 1] == 0.0 and np.isfinite(params["w"][0, 0]) and params["w"][0, 0] != 1.0


def test_tickets_of_a_seed_see_the_same_batches_and_start_from_other_weights(objective):
    winning, random = init(objective, [5]), init(objective, [5], 1)
    np.testing.assert_array_equal(jax.random.key_data(winning.key), jax.random.key_data(random.key))
    kernels = [s.params["encoder"]["dense"]["kernel"] for s in (winning, random)]
    assert not np.array_equal(*kernels)


def test_an_epoch_sees_every_example_once_and_epochs_differ(objective, data):
    """A model-free objective that records which examples came: their labels' positions are the data."""
    numbers = np.arange(data.label.size, dtype=np.uint32)
    numbered = packing.pack(numbers.view(np.uint8).reshape(-1, 1, 1, 4), data.label)

    def step(state, mask, batch, key):
        number = jax.lax.bitcast_convert_type(batch.image[:, 0, 0, :], jnp.uint32)
        seen = state.params["seen"].at[number].add(1.0)
        return state._replace(params={"seen": seen}, step=state.step + 1), {"loss": jnp.sum(number.astype(jnp.float32))}

    recorder = objective._replace(step=step, init=lambda key: None)
    state = loop.TrainState(
        {"seen": jnp.zeros((1, data.label.size))},
        {},
        (),
        jnp.zeros(1, jnp.int32),
        jax.random.split(jax.random.key(0), 1),
    )
    mask = {"seen": jnp.ones(1, bool)}
    state, log, _ = train(recorder, state, mask, numbered, 0, 44)
    seen = np.asarray(state.params["seen"][0])
    steps = data.label.size // BATCH
    assert seen.max() == 2 and seen.sum() == 2 * steps * BATCH
    sums = np.asarray(log["loss"][:44, 0]).reshape(2, steps)
    assert not np.array_equal(sums[0], sums[1])


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (2, 4)])
def test_eight_devices_give_the_masks_of_one(objective, data, shape):
    states = init(objective, list(range(8)))
    alone, _, _ = train(objective, states, dense(states), data, 0, 25)
    spread = jax.sharding.Mesh(np.array(jax.devices()[:8]).reshape(shape), ("ticket", "data"))
    sharded, _, _ = train(objective, states, dense(states), data, 0, 25, on=spread)
    expected, found = sparse(alone, 0.6), sparse(sharded, 0.6)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("tickets", "shape"), [("sequential", (1, 1)), ("sequential", (1, 4)), ("sharded", (4, 2))])
def test_tickets_one_by_one_train_as_they_do_together(objective, data, tickets, shape):
    states = init(objective, list(range(4)))
    mask = sparse(states, 0.5)
    together, log, _ = train(objective, states, mask, data, 0, 25)
    devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    on = jax.sharding.Mesh(devices, ("ticket", "data"))
    found, own, finite = train(objective, states, mask, data, 0, 25, on=on, tickets=tickets)
    assert finite.all()
    # The float32 roundings of 25 steps of Adam, as between a stack and single tickets above.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found.params, together.params)
    np.testing.assert_allclose(own["loss"], log["loss"], rtol=1e-4)
    evaluated = {
        name: loop.evaluate(objective, s.params, s.model_state, s.key, data, batch_size=100, mesh=m, tickets=name)
        for name, s, m in ((tickets, found, on), ("vmap", together, ONE))
    }
    np.testing.assert_allclose(*(e["reconstruction_loss"] for e in evaluated.values()), rtol=1e-4)


def test_one_program_for_any_piece_of_training(data):
    objective = build.objective(tiny.config(), (8, 8, 1))  # not compiled by any other test
    lowered = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **kw: lowered.append(name) if "jaxpr_to_mlir_module" in name else None
    )
    states = init(objective, [0])
    mask = dense(states)
    state, _, _ = train(objective, states, mask, data, 0, 7)
    before = len(lowered)
    for start, stop in ((7, 10), (10, 40), (40, 41)):
        state, _, _ = train(objective, state, mask, data, start, stop)
    assert before > 0 and len(lowered) == before


def test_a_state_that_is_not_finite_is_reported_for_its_ticket(objective, data):
    states = init(objective, [0, 1])
    params = jax.tree.map(lambda p: p.at[1].set(jnp.inf), states.params)
    _, log, finite = train(objective, states._replace(params=params), dense(states), data, 0, 2)
    assert finite.tolist() == [True, False]
    assert np.isfinite(log["loss"][:2, 0]).all() and not np.isfinite(log["loss"][:2, 1]).any()


def test_evaluation_counts_every_example_once(objective, data):
    """Against float64 numpy on the whole set at once, with a last batch that is shorter."""
    states = init(objective, [0, 1])
    metrics = loop.evaluate(objective, states.params, states.model_state, states.key, data, batch_size=100, mesh=ONE)
    x = np.asarray(packing.unpack(data).image, np.float64).reshape(-1, 64) / 255
    for i in range(2):
        encoder, decoder = (
            jax.tree.map(lambda p, i=i: np.asarray(p[i], np.float64), states.params[c]["dense"])
            for c in ("encoder", "decoder")
        )
        z = np.maximum(x @ encoder["kernel"] + encoder["bias"], 0)
        loss = np.mean((z @ decoder["kernel"] + decoder["bias"] - x) ** 2)
        np.testing.assert_allclose(metrics["reconstruction_loss"][i], loss, rtol=1e-5)
