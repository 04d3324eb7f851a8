"""Convolutions as Flax modules, with Flax's fields, parameter layout and initialization; see `convolutions`.

On CPU they take the form that `convolutions` spells out, elsewhere a single `lax.conv_general_dilated` call.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from lotto_jax.models import convolutions
from lotto_jax.models.convolutions import Image, Lowering, Pads, Pair, Resample


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _padding(value: str | int | Sequence[int | Pair]) -> str | Pads:
    """Flax's forms of padding: a name, one number for all sides, or for each axis a number or a pair."""
    if isinstance(value, str):
        if value not in ("SAME", "VALID"):
            raise ValueError(f"padding is {value!r}; use 'SAME', 'VALID' or numbers.")
        return value
    axes = (value, value) if isinstance(value, int) else value
    pairs = [_pair(axis) for axis in axes]
    return pairs[0], pairs[1]


class Conv(nn.Module):
    """`flax.linen.Conv` in two dimensions, over `[batch, height, width, channels]`; see `convolutions.conv`.

    The fields mean what they do in Flax, and params are the same: `bias`, and `kernel` of
    `[height, width, input, features]`. `resample="double"` doubles the size of the input first (nearest neighbour),
    "halve" averages 2x2 outputs; both are for stride 1 and padding "SAME".
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: str | int | Sequence[int | Pair] = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.linear.default_kernel_init
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    promote_dtype: Callable[..., Any] = nn.dtypes.promote_dtype
    resample: Resample | None = None

    @nn.compact
    def __call__(self, inputs: Image, lowering: Lowering = "auto") -> Image:
        """The convolved input, in `dtype`."""
        resample = self.resample
        if resample is None:
            return _layer(self, convolutions.conv, inputs, lowering)
        if resample not in ("double", "halve") or _pair(self.strides) != (1, 1) or self.padding != "SAME":
            raise ValueError(
                f"resample={resample!r}: use 'double' or 'halve', with strides 1 and padding 'SAME', or None."
            )

        def resampling(x: Image, kernel: Array, *_: Any) -> Image:
            return convolutions.resampling_conv(x, kernel, resample, lowering)

        return _layer(self, resampling, inputs, lowering)


class ConvTranspose(nn.Module):
    """`flax.linen.ConvTranspose` in two dimensions, over `[batch, height, width, channels]`.

    See `convolutions.conv_transpose`.

    The fields mean what they do in Flax, and params are the same: `bias`, and `kernel` of
    `[height, width, input, features]`.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: str | int | Sequence[int | Pair] = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.linear.default_kernel_init
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    promote_dtype: Callable[..., Any] = nn.dtypes.promote_dtype

    @nn.compact
    def __call__(self, inputs: Image, lowering: Lowering = "auto") -> Image:
        """The transposed convolution of the input, in `dtype`."""
        return _layer(self, convolutions.conv_transpose, inputs, lowering)


def _layer(module: Conv | ConvTranspose, function: Callable[..., Image], inputs: Image, lowering: Lowering) -> Image:
    """What both layers do: make the params, cast, convolve, add the bias."""
    shape = (*_pair(module.kernel_size), inputs.shape[-1], module.features)
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    bias = module.param("bias", module.bias_init, (module.features,), module.param_dtype) if module.use_bias else None
    inputs, kernel, bias = module.promote_dtype(inputs, kernel, bias, dtype=module.dtype)
    y = function(inputs, kernel, _pair(module.strides), _padding(module.padding), lowering)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def spectral_norm(layer: nn.Module) -> nn.SpectralNorm:
    """The layer with its kernel divided by an estimate of the largest singular value (Miyato et al. 2018).

    The kernel counts as a matrix of `[everything else, features]`. Every call makes one power iteration from
    the stored vector u, and stores its result where `update_stats` is True; call
    `spectral_norm(layer)(x, update_stats=train)`. State is in the collection `spectral_stats`; params stay
    where the bare layer has them, so a mask on them acts before the normalization.
    """
    return nn.SpectralNorm(layer, collection_name="spectral_stats", name=f"{layer.name}_spectral")


@contextlib.contextmanager
def plain_lowering() -> Iterator[None]:
    """Within it, convolutions of layers called by this thread are traced as single `lax.conv_general_dilated` calls.

    For walking a jaxpr, or for forward-mode derivatives. It acts while a function is traced: one that was
    already jitted keeps its form.

    >>> with plain_lowering():
    ...     jaxpr = jax.make_jaxpr(lambda x: model.apply(variables, x, train=False))(images)
    """

    def intercept(
        call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        if isinstance(context.module, Conv | ConvTranspose) and context.method_name == "__call__":
            kwargs = {**kwargs, "lowering": "plain"}
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
