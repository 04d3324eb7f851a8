"""Winograd's minimal filtering, in which a gradient with respect to a kernel takes fewer multiplications.

F(m, r) computes m outputs of a filter of r taps as `outputs.T @ ((taps @ w) * (inputs @ x))` from n = m + r - 1 inputs
x, with n products instead of m r. In two dimensions every matrix acts on rows and columns. The gradient with respect to
w is the transpose of that map (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section
4): transform tiles of inputs and of output gradients, multiply, add up over all tiles (`products`), transform back
(`kernel`).
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Image = Float[Array, "batch height width channels"]
Products = Float[Array, "n*n input output"]


class Filtering(NamedTuple):
    """The matrices of F(m, r).

    Attributes:
      inputs: `[n, n]`.
      taps: `[n, r]`.
      outputs: `[n, m]`.
    """

    inputs: np.ndarray
    taps: np.ndarray
    outputs: np.ndarray


# The points are 0, +-1, +-2 and infinity.
F43 = Filtering(
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]]),
)
# The points are 0, 1 and infinity.
F22 = Filtering(
    np.array([[1, -1, 0], [0, 1, 0], [0, -1, 1]]),
    np.array([[1, 0], [1, 1], [0, 1]]),
    np.array([[1, 0], [1, 1], [0, 1]]),
)


def num_tiles(g: Image, form: Filtering) -> tuple[int, int]:
    """How many tiles of m x m the height and the width of `g` hold; both must be multiples of m."""
    m = form.outputs.shape[1]
    return g.shape[1] // m, g.shape[2] // m


def products(x: Image, g: Image, form: Filtering) -> Products:
    """Sums over all tiles of the products of transformed n x n inputs and m x m output gradients, in float32.

    Args:
      x: the input of the convolution, already padded.
      g: the gradient of its output, at stride 1.
      form: of the kernel; its m divides the height and the width of `g`.
    """
    n, m = len(form.inputs), form.outputs.shape[1]
    tiles = num_tiles(g, form)
    pair = _transformed(_tiles(x, n, m, tiles), form.inputs), _transformed(_tiles(g, m, m, tiles), form.outputs)
    a, b = (t.reshape(n * n, -1, t.shape[-1]) for t in pair)
    return jnp.einsum("npi,npo->nio", a, b, preferred_element_type=jnp.float32)


def kernel(total: Products, form: Filtering) -> Float[Array, "r r input output"]:
    """The gradient with respect to the kernel, from `products` added up over the batch."""
    n = len(form.inputs)
    return _transformed([[total[n * i + j] for j in range(n)] for i in range(n)], form.taps.T)


def _tiles(x: Image, size: int, step: int, tiles: tuple[int, int]) -> list[list[Image]]:
    """Entry (i, j) of every `size` x `size` tile, of which there is one every `step` rows and columns."""

    def every(start: int, axis: int, x: Image) -> Image:
        return lax.slice_in_dim(x, start, start + step * (tiles[axis - 1] - 1) + 1, step, axis)

    return [[every(j, 2, every(i, 1, x)) for j in range(size)] for i in range(size)]


def _transformed(grid: list[list[Array]], matrix: np.ndarray) -> Array:
    """`matrix @ grid @ matrix.T`, its rows and columns as two leading axes."""

    def combine(weights: np.ndarray, terms: list[Array]) -> Array:
        return functools.reduce(jnp.add, [float(w) * t for w, t in zip(weights, terms, strict=True) if w])

    rows = [[combine(weights, column) for column in map(list, zip(*grid, strict=True))] for weights in matrix]
    return jnp.stack([jnp.stack([combine(weights, row) for weights in matrix]) for row in rows])
