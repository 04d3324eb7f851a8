"""The ranges of data: bytes as image sources store them, [0, 1], and [-1, 1] for networks that end in a tanh."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_unit(image: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Uint8 images as float32 in [0, 1]."""
    return image.astype(jnp.float32) / 255.0


def to_signed(image: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Uint8 images as float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def as_signed(data: UInt8[Array, "*shape"] | Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Bytes as `to_signed`; vectors of floats, which have no range, as they are."""
    return to_signed(data) if data.dtype == jnp.uint8 else data


def signed_from_unit(image: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Images in [0, 1] as images in [-1, 1]; differs from `to_signed` of the bytes by rounding."""
    return 2.0 * image - 1.0


def unit_from_signed(image: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Images in [-1, 1] as images in [0, 1]."""
    return 0.5 * image + 0.5
