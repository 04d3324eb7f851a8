"""Dynamic loss scaling: without it small gradients are zero in float16 (Micikevicius et al., ICLR 2018, section 3.2).

The loss is multiplied by a scale, and the gradients divided by it, in float32, before the optimizer sees them. Where
some are not finite the update is skipped and the scale halved; after `INTERVAL` finite ones in a row it is doubled, up
to `LARGEST`. The scale is part of the optimizer's state, and so of checkpoints and snapshots.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

INITIAL, LARGEST, INTERVAL = 2.0**15, 2.0**24, 1000


class LossScaleState(NamedTuple):
    """State of an optimizer of scaled gradients.

    Attributes:
      inner: of the optimizer itself.
      scale: that the next loss is multiplied by; a power of two.
      finite_steps: updates since the scale changed.
    """

    inner: PyTree
    scale: Float[Array, ""]
    finite_steps: Int[Array, ""]


def for_dtype(optimizer: optax.GradientTransformation, dtype: Any) -> optax.GradientTransformation:
    """The optimizer of a network that computes in `dtype`: of scaled gradients if that is float16."""
    if jnp.dtype(dtype) != jnp.float16:
        return optimizer

    def init(params: PyTree) -> LossScaleState:
        return LossScaleState(optimizer.init(params), jnp.float32(INITIAL), jnp.int32(0))

    def update(grads: PyTree, state: LossScaleState, params: PyTree | None = None) -> tuple[PyTree, LossScaleState]:
        finite = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads)])
        unscaled = jax.tree.map(lambda g: jnp.where(finite, g / state.scale, 0), grads)
        updates, inner = optimizer.update(unscaled, state.inner, params)
        updates = jax.tree.map(lambda u: jnp.where(finite, u, 0), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner, state.inner)
        steps = jnp.where(finite, state.finite_steps + 1, 0)
        grow = steps == INTERVAL
        scale = jnp.clip(state.scale * jnp.where(finite, jnp.where(grow, 2.0, 1.0), 0.5), 1.0, LARGEST)
        return updates, LossScaleState(inner, scale, jnp.where(grow, 0, steps))

    return optax.GradientTransformation(init, update)


def value_and_grad(loss_fn: Callable[..., Any], opt_state: PyTree, argnums: int = 0) -> Callable[..., Any]:
    """`jax.value_and_grad(loss_fn, argnums, has_aux=True)` whose gradients, but not the value, are scaled.

    The scale is that of `opt_state`, 1 if the optimizer has none.
    """
    scale = opt_state.scale if isinstance(opt_state, LossScaleState) else 1.0

    def scaled(*inputs: Any) -> tuple[Array, tuple[Array, PyTree]]:
        value, aux = loss_fn(*inputs)
        return value * scale, (value, aux)

    def call(*inputs: Any) -> tuple[tuple[Array, PyTree], PyTree]:
        grads, value_and_aux = jax.grad(scaled, argnums, has_aux=True)(*inputs)
        return value_and_aux, grads

    return call


def carried_over(old: PyTree, fresh: PyTree) -> PyTree:
    """Optimizer state `old`, of a computation in another precision, as one with the structure of `fresh`."""
    scaled = lambda node: isinstance(node, LossScaleState)  # noqa: E731
    structure: Any = jax.tree.structure
    if structure(old) == structure(fresh):
        return old
    inner = jax.tree.map(lambda node: node.inner if scaled(node) else node, old, is_leaf=scaled)
    wrap = lambda node, own: node._replace(inner=own) if scaled(node) else own  # noqa: E731
    return jax.tree.map(wrap, fresh, inner, is_leaf=scaled)
