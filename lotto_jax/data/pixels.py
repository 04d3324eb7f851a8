"""From an encoded or stored image to the pixels that networks see: centered square, antialiased resize."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of PIL, by number of channels


def decode(encoded: bytes, channels: int, size: int) -> UInt8[np.ndarray, "height width channels"]:
    """Pixels of a PNG or JPEG file, fitted to `size` (see `fit`)."""
    with Image.open(io.BytesIO(encoded)) as image:
        return convert(image, channels, size)


def convert(image: Image.Image, channels: int, size: int) -> UInt8[np.ndarray, "height width channels"]:
    """Pixels of an image of Pillow's, fitted to `size` (see `fit`)."""
    return _pixels(_fitted(image.convert(MODES[channels]), size), channels)


def fit(image: UInt8[np.ndarray, "height width channels"], size: int) -> UInt8[np.ndarray, "size size channels"]:
    """The largest centered square, resized to `size` x `size`; the image itself where `size` is 0.

    Of CelebA's 218x178 images that square is the 178x178 crop of the GAN literature. The filter is Pillow's bicubic,
    which widens with the reduction and so antialiases.
    """
    channels = image.shape[-1]
    return _pixels(_fitted(Image.fromarray(image.squeeze(-1) if channels == 1 else image), size), channels)


def _fitted(image: Image.Image, size: int) -> Image.Image:
    if not size:
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def _pixels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
