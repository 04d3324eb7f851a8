"""Convolutions as pure functions that are also fast on CPU; `layers` makes Flax modules of them.

XLA's CPU backend is fast at forward convolutions and at matrix products, and slow, by up to a hundred times, at many of
the convolutions that differentiation makes: strided transposed convolutions, and convolutions whose window is the whole
image, for kernel gradients. On CPU the three bilinear maps of a layer are therefore spelled out in the fast operations:

- `_correlate`: the convolution itself. A `lax` convolution, or patches x matrix where few output positions
  share it.
- `_spread`: its transpose in the input. A correlation with the flipped kernel at stride 1; at stride s a
  correlation with all s x s phases of the kernel as channels, interleaved afterwards (the "sub-pixel" form).
- `_kernel_gradient`: its transpose in the kernel. One matrix product a kernel tap, over slices of the batch
  that fit the cache; for 3x3 kernels at stride 1 and 4x4 kernels at stride 2 Winograd's form, with a fourth and
  9/16 of the multiplications.

On CPU a convolution next to upsampling or average pooling is one (transposed) convolution of stride 2, with fewer
products, see `resampling_conv`.

Everywhere else, and with `lowering="plain"`, a convolution is a single `lax.conv_general_dilated` call. The CPU form
has a custom VJP: it can be differentiated any number of times in reverse, and forward over reverse (`jvp` of
`grad`), but `jvp` of the layer itself needs the plain form, see `layers.plain_lowering`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lotto_jax.models import platforms, winograd

Lowering = Literal["auto", "plain", "cpu"]
Resample = Literal["double", "halve"]
Pads = tuple[tuple[int, int], tuple[int, int]]
Pair = tuple[int, int]
Image = Float[Array, "batch height width channels"]
Kernel = Float[Array, "kernel_height kernel_width input output"]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FEW_POSITIONS = 16  # up to 4x4 outputs, a convolution is slower than patches x matrix
_FEW_CHANNELS = 16  # below, one matrix product over all taps beats one a tap
_ROWS = 2048  # output positions in a slice of the batch: 1 MB at 128 channels, which fits L2
_TILES = 256  # tiles in a slice of the batch for Winograd's form


def _dot(a: Array, b: Array) -> Array:
    """The matrix product, accumulated in float32, in the dtype of the operands."""
    return jnp.matmul(a, b, preferred_element_type=jnp.float32).astype(a.dtype)


def _rows(x: Array) -> Array:
    """The array as a matrix with a row for every position."""
    return x.reshape(-1, x.shape[-1])


def _flip(w: Kernel) -> Kernel:
    """The kernel of the transposed map: taps mirrored, input and output channels exchanged."""
    return jnp.flip(w, (0, 1)).swapaxes(2, 3)


def _pad(x: Image, pads: Pads) -> Image:
    """Zero padding of the two spatial axes; a negative amount crops."""
    (top, bottom), (left, right) = pads
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))


def _taps(x: Image, size: Pair, strides: Pair, out: Pair) -> list[Image]:
    """For every kernel tap, in row-major order, the entries of padded `x` that it meets."""
    batch, _, _, channels = x.shape
    spans = [s * (n - 1) + 1 for s, n in zip(strides, out, strict=True)]
    return [
        lax.slice(x, (0, i, j, 0), (batch, i + spans[0], j + spans[1], channels), (1, *strides, 1))
        for i in range(size[0])
        for j in range(size[1])
    ]


def _output_size(x: Image, w: Kernel, strides: Pair, pads: Pads) -> Pair:
    height, width = ((x.shape[1 + d] + sum(pads[d]) - w.shape[d]) // strides[d] + 1 for d in (0, 1))
    return height, width


def _correlate(x: Image, w: Kernel, strides: Pair, pads: Pads) -> Image:
    """The convolution of neural networks (a cross-correlation), NHWC and HWIO."""
    height, width = out = _output_size(x, w, strides, pads)
    if height * width > _FEW_POSITIONS:
        return lax.conv_general_dilated(x, w, strides, pads, dimension_numbers=_DIMENSIONS)
    patches = jnp.concatenate(_taps(_pad(x, pads), (w.shape[0], w.shape[1]), strides, out), axis=-1)
    return _dot(_rows(patches), _rows(w)).reshape(x.shape[0], height, width, -1)


def _spread(g: Image, w: Kernel, strides: Pair, pads: Pads, size: Pair) -> Image:
    """The transpose of `x -> _correlate(x, w, strides, pads)` for x of spatial `size`."""
    batch, height, width, _ = g.shape
    kernel_height, kernel_width, channels, _ = w.shape
    if strides == (1, 1) and height * width > _FEW_POSITIONS:
        # The input is a correlation of g, padded so far that every overlap with the kernel counts.
        around = [
            (k - 1 - low, n + low - m)
            for k, (low, _), n, m in zip(w.shape[:2], pads, size, (height, width), strict=True)
        ]
        return _correlate(g, _flip(w), strides, (around[0], around[1]))
    # Tap i of the kernel is tap i // s of phase i % s; phases without a tap are zero.
    rows, columns = min(strides[0], kernel_height), min(strides[1], kernel_width)
    a, b = -(-kernel_height // rows), -(-kernel_width // columns)
    w = jnp.pad(w, ((0, a * rows - kernel_height), (0, b * columns - kernel_width), (0, 0), (0, 0)))
    if height * width > _FEW_POSITIONS:
        phases = w.reshape(a, rows, b, columns, channels, -1).transpose(0, 2, 1, 3, 4, 5)
        phases = phases.reshape(a, b, rows * columns * channels, -1)
        y = _correlate(g, _flip(phases), (1, 1), ((a - 1, a - 1), (b - 1, b - 1)))
    else:
        # All products of g and the kernel at once, then added up where they belong.
        products = _dot(_rows(g), _rows(w).T).reshape(batch, height, width, a, rows, b, columns * channels)
        y = functools.reduce(
            jnp.add,
            [
                _pad(products[:, :, :, i, :, j].reshape(batch, height, width, -1), ((i, a - 1 - i), (j, b - 1 - j)))
                for i in range(a)
                for j in range(b)
            ],
        )
    y = y.reshape(batch, height + a - 1, width + b - 1, rows, columns, channels)
    y = jnp.pad(y, [(0, 0)] * 3 + [(0, strides[0] - rows), (0, strides[1] - columns), (0, 0)])
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, strides[0] * y.shape[1], strides[1] * y.shape[2], channels)
    crop = [(-low, n + low - m) for (low, _), n, m in zip(pads, size, y.shape[1:3], strict=True)]
    return _pad(y, (crop[0], crop[1]))


def _kernel_gradient(x: Image, g: Image, strides: Pair, pads: Pads, size: Pair) -> Kernel:
    """The transpose of `w -> _correlate(x, w, strides, pads)` for w of spatial `size`, in float32."""
    _, height, width, features = g.shape
    channels = x.shape[-1]
    if strides == (1, 1) and features < _FEW_CHANNELS <= channels:
        # Exchange the roles of x and g, so that the taps are cut from the array with few channels.
        around = [
            (k - 1 - low, n + low - m)
            for k, (low, _), n, m in zip(size, pads, x.shape[1:3], (height, width), strict=True)
        ]
        return _flip(_kernel_gradient(g, x, strides, (around[0], around[1]), size))
    x = _pad(x, pads)
    # Winograd's forms want whole tiles, of which fewer do not pay, and float32: transforms amplify coarser rounding.
    if x.dtype == jnp.float32 and height % 4 == width % 4 == 0 and min(channels, features) >= _FEW_CHANNELS:
        if (strides, size) == ((1, 1), (3, 3)):
            return _filtering_gradient(x, g, winograd.F43)
        if (strides, size) == ((2, 2), (4, 4)):
            # A 2x2 kernel at stride 1 over the 2x2 phases of x as channels.
            x = x[:, : 2 * height + 2, : 2 * width + 2].reshape(-1, height + 1, 2, width + 1, 2, channels)
            x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height + 1, width + 1, 4 * channels)
            phases = _filtering_gradient(x, g, winograd.F22).reshape(2, 2, 2, 2, channels, features)
            return phases.transpose(0, 2, 1, 3, 4, 5).reshape(*size, channels, features)

    def gradient(x: Image, g: Image) -> Kernel:
        taps = _taps(x, size, strides, (height, width))
        if channels < _FEW_CHANNELS or height * width <= _FEW_POSITIONS:
            taps = [jnp.concatenate(taps, axis=-1)]
        products = [jnp.matmul(_rows(t).T, _rows(g), preferred_element_type=jnp.float32) for t in taps]
        return jnp.stack(products).reshape(*size, channels, features)

    if height * width <= _FEW_POSITIONS:
        return gradient(x, g)
    return _sum_over_slices(gradient, x, g, _ROWS // (height * width))


def _sum_over_slices(function: Callable[[Image, Image], Array], x: Image, g: Image, images: int) -> Array:
    """`function(x, g)`, which sums over the batch, a slice of so many images at a time where these divide the batch."""
    batch, images = x.shape[0], max(1, images)
    if batch <= images or batch % images:
        return function(x, g)

    def accumulate(total: Array, part: tuple[Image, Image]) -> tuple[Array, None]:
        return total + function(*part), None

    parts = [a.reshape(batch // images, images, *a.shape[1:]) for a in (x, g)]
    shape = jax.eval_shape(function, parts[0][0], parts[1][0])
    return lax.scan(accumulate, jnp.zeros(shape.shape, shape.dtype), (parts[0], parts[1]))[0]


def _filtering_gradient(x: Image, g: Image, form: winograd.Filtering) -> Kernel:
    """`_kernel_gradient` at stride 1 for padded `x` and the kernel of `form`, whose m divides the size of `g`."""
    images = _TILES // max(1, math.prod(winograd.num_tiles(g, form)))
    total = _sum_over_slices(functools.partial(winograd.products, form=form), x, g, images)
    return winograd.kernel(total, form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cpu_conv(x: Image, w: Kernel, strides: Pair, pads: Pads) -> Image:
    return _correlate(x, w, strides, pads)


def _cpu_conv_forward(x: Image, w: Kernel, strides: Pair, pads: Pads) -> tuple[Image, tuple[Image, Kernel]]:
    return _correlate(x, w, strides, pads), (x, w)


def _cpu_conv_backward(strides: Pair, pads: Pads, saved: tuple[Image, Kernel], g: Image) -> tuple[Image, Kernel]:
    x, w = saved
    dx = _spread(g, w, strides, pads, (x.shape[1], x.shape[2]))
    dw = _kernel_gradient(x, g, strides, pads, (w.shape[0], w.shape[1]))
    return dx, dw.astype(w.dtype)


_cpu_conv.defvjp(_cpu_conv_forward, _cpu_conv_backward)


# The transposed convolution is `_spread` of the mirrored kernel, so the same three maps serve it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _cpu_conv_transpose(x: Image, w: Kernel, strides: Pair, pads: Pads, size: Pair) -> Image:
    return _spread(x, _flip(w), strides, pads, size)


def _cpu_conv_transpose_forward(
    x: Image, w: Kernel, strides: Pair, pads: Pads, size: Pair
) -> tuple[Image, tuple[Image, Kernel]]:
    return _spread(x, _flip(w), strides, pads, size), (x, w)


def _cpu_conv_transpose_backward(
    strides: Pair, pads: Pads, size: Pair, saved: tuple[Image, Kernel], g: Image
) -> tuple[Image, Kernel]:
    x, w = saved
    dw = _flip(_kernel_gradient(g, x, strides, pads, (w.shape[0], w.shape[1])))
    return _correlate(g, _flip(w), strides, pads), dw.astype(w.dtype)


_cpu_conv_transpose.defvjp(_cpu_conv_transpose_forward, _cpu_conv_transpose_backward)


def _use_cpu(lowering: Lowering) -> bool:
    if lowering not in ("auto", "plain", "cpu"):
        raise ValueError(f"lowering is {lowering!r}; use 'auto', 'plain' or 'cpu'.")
    return lowering == "cpu" or (lowering == "auto" and platforms.current() == "cpu")


def conv(x: Image, kernel: Kernel, strides: Pair, padding: str | Pads, lowering: Lowering = "auto") -> Image:
    """A 2-D convolution.

    Args:
      x: `[batch, height, width, input]`.
      kernel: `[kernel_height, kernel_width, input, output]`, of the same dtype.
      strides: of the two spatial axes.
      padding: "SAME", "VALID", or (low, high) for each spatial axis.
      lowering: "plain" is `lax.conv_general_dilated`; "cpu" the form of this module; "auto" picks by
        `platforms.current`. All agree to float rounding, derivatives included.
    """
    if not _use_cpu(lowering):
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_DIMENSIONS)
    pads = (
        lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding) if isinstance(padding, str) else padding
    )
    return _cpu_conv(x, kernel, strides, (tuple(pads[0]), tuple(pads[1])))


def conv_transpose(x: Image, kernel: Kernel, strides: Pair, padding: str | Pads, lowering: Lowering = "auto") -> Image:
    """A 2-D transposed convolution: a convolution of `x` with `strides - 1` zeros between its entries.

    Takes the arguments of `conv`, but explicit padding is the padding of the widened input, as in
    `lax.conv_transpose`: at kernel 4 and stride 2, "SAME" and ((2, 2), (2, 2)) both double the size (PyTorch
    calls it padding=1).
    """
    if not _use_cpu(lowering):
        return lax.conv_transpose(x, kernel, strides, padding, dimension_numbers=_DIMENSIONS)
    size, pads = [], []
    for n, k, s, p in zip(
        x.shape[1:3], kernel.shape[:2], strides, _transpose_pads(kernel, strides, padding), strict=True
    ):
        size.append((n - 1) * s + 1 + p[0] + p[1] - k + 1)
        pads.append((k - 1 - p[0], k - 1 - p[1]))
    return _cpu_conv_transpose(x, kernel, strides, (pads[0], pads[1]), (size[0], size[1]))


def _transpose_pads(kernel: Kernel, strides: Pair, padding: str | Pads) -> Sequence[Pair]:
    """Padding of the widened input, by the rule of `lax.conv_transpose`."""
    if not isinstance(padding, str):
        return padding
    pads = []
    for k, s in zip(kernel.shape[:2], strides, strict=True):
        if padding == "SAME":
            low = k - 1 if s > k - 1 else -(-(k + s - 2) // 2)
            pads.append((low, k + s - 2 - low))
        else:
            pads.append((k - 1, k - 1 + max(s - k, 0)))
    return pads


def double(x: Image) -> Image:
    """Nearest-neighbour upsampling by two."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def halve(x: Image) -> Image:
    """2x2 average pooling."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), (2, 4))


def resampling_conv(x: Image, kernel: Kernel, resample: Resample, lowering: Lowering) -> Image:
    """A convolution of stride 1 and padding "SAME" after `double` or before `halve`.

    The pair is one (transposed) convolution of stride 2 with sums of neighbouring taps: 16 products for the 36 of a
    3x3 kernel. On CPU it is computed so. `conv` explains the other arguments.

    Raises:
      ValueError: for `resample="halve"` if the height or the width of `x` is odd.
    """
    if resample == "halve" and any(n % 2 for n in x.shape[1:3]):
        raise ValueError(f"resample='halve' needs images of even height and width, not {x.shape[1]}x{x.shape[2]}.")
    if not _use_cpu(lowering):
        x = double(x) if resample == "double" else x
        x = conv(x, kernel, (1, 1), "SAME", lowering)
        return halve(x) if resample == "halve" else x
    (top, bottom), (left, right) = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (1, 1), "SAME")
    ends = ((0, 1), (1, 0))
    sums = kernel.astype(jnp.float32)
    sums = functools.reduce(jnp.add, [jnp.pad(sums, (i, j, (0, 0), (0, 0))) for i in ends for j in ends])
    if resample == "halve":
        return conv(x, (sums / 4).astype(kernel.dtype), (2, 2), ((top, bottom), (left, right)), lowering)
    pads = (top + 1, bottom + 1), (left + 1, right + 1)
    return conv_transpose(x, sums.astype(kernel.dtype), (2, 2), pads, lowering)
