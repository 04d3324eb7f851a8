"""Masks: structure, exact zeros, component predicates, packing, and messages for masks that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax import pruning


def network():
    return {
        "encoder": {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}},
        "decoder": {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}},
    }


def test_ones_makes_kernels_prunable_and_biases_scalar():
    mask = pruning.ones(network())
    assert mask["encoder"]["dense"]["kernel"].shape == (4, 3)
    assert mask["encoder"]["dense"]["bias"].shape == ()
    assert pruning.num_prunable(mask) == 24 == int(pruning.num_kept(mask))
    assert float(pruning.sparsity(mask)) == 0.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float8_e4m3fn"])
def test_only_floating_leaves_are_prunable(dtype):
    params = {
        "kernel": jnp.ones((2, 3), dtype),
        "table": jnp.ones((4, 2), jnp.int32),
        "flags": jnp.ones((4, 2), bool),
        "key": jax.random.split(jax.random.key(0), (2, 2)),
    }
    abstract = jax.eval_shape(lambda p: p, params)
    for mask in (pruning.ones(params), pruning.ones(abstract)):
        assert {name: m.shape for name, m in mask.items()} == {"kernel": (2, 3), "table": (), "flags": (), "key": ()}
    scores = {name: x if name == "key" else jnp.arange(x.size).reshape(x.shape) for name, x in params.items()}
    scores["kernel"] = scores["kernel"].astype(dtype)
    pruned = pruning.global_prune(scores, mask, 0.5)
    np.testing.assert_array_equal(pruned["kernel"], [[False, False, False], [True, True, True]])
    np.testing.assert_array_equal(pruning.apply(params, pruned)["table"], params["table"])


def test_a_mask_with_nothing_to_prune_is_dense():
    mask = pruning.ones({"kernel": jnp.ones((2, 3))}, pruning.in_components("generator"))
    assert pruning.num_prunable(mask) == 0
    assert pruning.sparsity(mask) == 0


def test_in_components_leaves_the_others_whole():
    mask = pruning.ones(network(), prunable=pruning.in_components("decoder"))
    pruned = pruning.global_prune(network(), mask, 0.5)
    assert pruned["encoder"]["dense"]["kernel"].shape == ()
    assert int(pruning.num_kept(pruned)) == 6


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pruned_weight_is_exactly_zero_whatever_it_was(bad, dtype):
    params = {"kernel": jnp.full((2, 2), bad, dtype)}
    out = pruning.apply(params, {"kernel": jnp.asarray([[True, False], [False, False]])})
    assert out["kernel"].dtype == dtype
    np.testing.assert_array_equal(out["kernel"].astype(jnp.float32).reshape(-1)[1:], np.zeros(3))


def test_the_gradient_of_a_pruned_weight_is_zero():
    mask = {"kernel": jnp.asarray([[True, False]])}
    grads = jax.grad(lambda p: jnp.sum(jnp.exp(pruning.apply(p, mask)["kernel"])))({"kernel": jnp.ones((1, 2))})
    np.testing.assert_allclose(grads["kernel"], [[np.e, 0.0]], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=24, max_size=24))
def test_packing_is_lossless_and_an_eighth_of_a_byte_an_entry(bits):
    like = pruning.ones(network())
    mask = jax.tree.map(lambda m: m, like)
    mask["encoder"]["dense"]["kernel"] = jnp.asarray(bits[:12]).reshape(4, 3)
    mask["decoder"]["dense"]["kernel"] = jnp.asarray(bits[12:]).reshape(3, 4)
    packed = pruning.pack(mask)
    assert sum(v.nbytes for v in packed.values()) == 4
    jax.tree.map(np.testing.assert_array_equal, pruning.unpack(packed, like), mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["encoder"].pop("dense"), "no leaf 'encoder/dense/bias'"),
        (lambda m: m.update(critic=jnp.ones((), bool)), "a leaf 'critic' that params lack"),
        (lambda m: m["encoder"]["dense"].update(kernel=jnp.ones((4, 2), bool)), r"shape \(4, 2\)"),
        (lambda m: m["encoder"]["dense"].update(kernel=jnp.ones((4, 3))), "dtype float32, not bool"),
    ],
)
def test_a_mask_that_does_not_fit_names_the_leaf(change, message):
    mask = pruning.ones(network())
    change(mask)
    with pytest.raises(ValueError, match=message):
        pruning.apply(network(), mask)
    with pytest.raises(ValueError, match="leaf"):
        pruning.global_prune(network(), mask, 0.5)


def test_a_stored_mask_of_another_network_is_refused():
    packed = pruning.pack(pruning.ones(network()))
    other = pruning.ones({"encoder": {"dense": {"kernel": jnp.ones((40, 3))}}})
    with pytest.raises(ValueError, match="encoder/dense/kernel"):
        pruning.unpack(packed, other)


def test_apply_keeps_the_structure_of_namedtuples_and_lists():
    params = [jnp.ones((2, 2)), {"x": jnp.ones(())}]
    assert jax.tree.structure(pruning.apply(params, pruning.ones(params))) == jax.tree.structure(params)
