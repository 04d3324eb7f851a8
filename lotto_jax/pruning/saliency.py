"""Scores for pruning at initialization, SNIP and GraSP, as pure functions of a loss; higher = keep.

Only the leaves that the mask marks as prunable (`masks.ones`) are ranked, kernels by default, and the weights that are
scored are the weights that train. (The published SNIP code ranks biases too, and scores weights that it then does not
train.) For a GAN, score each component with its own loss as a function of this component's params: the generator's loss
does not say what a weight of the discriminator is worth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from lotto_jax.pruning.masks import Params

Loss = Callable[[Params], Float[Array, ""]]


def _product(a: Array, b: Array) -> Array:
    """a * b in float32, or in float64 where that is what both are."""
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    return a.astype(dtype) * b.astype(dtype)


def snip(loss_fn: Loss, params: Params) -> PyTree[Float[Array, "..."]]:
    """Connection sensitivity |theta * dL/dtheta| (Lee et al., ICLR 2019, eq. 5 and 6), higher = keep.

    The scores of the kernels (leaves of two dimensions or more) sum to 1, as the paper normalizes them; that makes the
    scores of several losses comparable when components are pooled, and changes no ranking within one.

    Args:
      loss_fn: the scalar loss of params over one batch, or over several by `mean_over`.
      params: pytree of arrays, at initialization.

    Returns:
      Scores with the structure and shapes of params, non-negative; float32, or float64 where params are float64.

    >>> mask = global_prune(snip(lambda p: loss(p, batch), params), ones(params), 0.9)
    """
    gradient = jax.grad(loss_fn)(params)
    scores = jax.tree.map(lambda p, g: jnp.abs(_product(p, g)), params, gradient)
    total = sum((jnp.sum(s) for s in jax.tree.leaves(scores) if s.ndim >= 2), jnp.float32(0))
    return jax.tree.map(lambda s: s / jnp.where(total > 0, total, 1).astype(s.dtype), scores)


def grasp(loss_fn: Loss, params: Params) -> PyTree[Float[Array, "..."]]:
    """Preserved gradient flow theta * (H g), with g = dL/dtheta and H the Hessian (Wang et al., ICLR 2020, eq. 8).

    The paper scores -theta * H g and removes the largest, the weights whose removal lowers the gradient norm least or
    even raises it; with the sign turned, higher = keep. Their code scales logits by 1/200, which flattens a softmax at
    initialization, and sums over class-balanced batches. A generative loss has neither logits nor classes to balance,
    so neither is done here: the loss is taken as it trains, over batches as they are drawn.

    Args:
      loss_fn: the scalar loss of params over one batch, or over several by `mean_over`; twice differentiable in reverse
        mode.
      params: pytree of arrays, at initialization.

    Returns:
      Scores with the structure and shapes of params, of either sign; float32, or float64 where params are float64.

    >>> mask = global_prune(grasp(lambda p: loss(p, batch), params), ones(params), 0.9)
    """
    gradient = jax.grad(loss_fn)
    g = gradient(params)

    # Reverse over reverse: forward mode is not defined for every layer with a derivative of its own.
    def along(p: Params) -> Float[Array, ""]:
        products = jax.tree.map(lambda x, y: jnp.sum(x * y, dtype=jnp.result_type(x, jnp.float32)), gradient(p), g)
        return sum(jax.tree.leaves(products), jnp.float32(0))

    hessian_gradient = jax.grad(along)(params)
    return jax.tree.map(_product, params, hessian_gradient)


def mean_over(loss_fn: Callable[[Params, PyTree], Float[Array, ""]], batches: PyTree) -> Loss:
    """The loss of params alone that averages `loss_fn(params, batch)` over stacked batches.

    One batch is in memory at a time, in the backward pass too.

    Args:
      loss_fn: `(params, batch) -> scalar`.
      batches: a batch pytree with a leading axis `[batches, ...]`.

    >>> scores = snip(mean_over(loss, batches), params)
    """

    def loss(params: Params) -> Float[Array, ""]:
        return jnp.mean(jax.lax.map(jax.checkpoint(lambda batch: loss_fn(params, batch)), batches))

    return loss
