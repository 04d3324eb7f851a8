"""Training with 8-bit floats, emulated: dense and convolutional layers see what float8 hardware would see.

Inputs and kernels are rounded to e4m3, gradients of outputs to e5m2, each tensor scaled to the range of the format by
its largest entry; what comes out is computed in the layer's own dtype, bfloat16 (Micikevicius et al., "FP8 Formats for
Deep Learning", 2022). No backend has float8 convolutions in JAX, so nothing gets faster or smaller by it: it tells what
the format does to the result. Zeros stay zeros.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import layers

LAYERS = (nn.Dense, nn.Conv, nn.ConvTranspose, layers.Conv, layers.ConvTranspose)
P = ParamSpec("P")
T = TypeVar("T")


def quantize(x: Float[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """The nearest values that `dtype` has for the entries of `x`, scaled so that the largest one is its largest."""
    scale = jnp.max(jnp.abs(x)).astype(jnp.float32) / jnp.finfo(dtype).max.astype(jnp.float32)
    scale = jnp.where(scale >= jnp.finfo(jnp.float32).tiny, scale, 1.0)  # smaller ones may count as 0 in a division
    return ((x / scale).astype(dtype).astype(jnp.float32) * scale).astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _rounded(x: Array, dtype: Any) -> Array:
    """`quantize` with the derivative of the identity."""
    return quantize(x, dtype)


@_rounded.defjvp
def _(dtype: Any, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _rounded(*primals, dtype), tangents[0]


@jax.custom_vjp
def _gradient_rounded(x: Array) -> Array:
    """`x` itself; gradients are rounded to e5m2 on their way back."""
    return x


_gradient_rounded.defvjp(lambda x: (x, None), lambda _, g: (_rounded(g, jnp.float8_e5m2),))


def _promote(inputs: Array, kernel: Array, bias: Array | None, *, dtype: Any) -> tuple[Array, Array, Array | None]:
    inputs, kernel, bias = nn.dtypes.promote_dtype(inputs, kernel, bias, dtype=dtype)
    return _rounded(inputs, jnp.float8_e4m3fn), _rounded(kernel, jnp.float8_e4m3fn), bias


def emulated(function: Callable[P, T]) -> Callable[P, T]:
    """`function` with the layers that it calls in 8 bits; it acts while the function is traced."""

    def intercept(
        call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        if not isinstance(context.module, LAYERS) or context.method_name != "__call__":
            return call(*args, **kwargs)
        # Modules are frozen for their users; this one was bound for this call only.
        object.__setattr__(context.module, "promote_dtype", _promote)
        return _gradient_rounded(call(*args, **kwargs))

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with nn.intercept_methods(intercept):
            return function(*args, **kwargs)

    return wrapped
