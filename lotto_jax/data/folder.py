"""A directory of images, found recursively and decoded once into the cache.

Images: the files whose names end in one of `SUFFIXES`, in any case, sorted by relative path; hidden files and
folders, whose names begin with a dot, are skipped, and links to folders are followed. All become grayscale if every
image is (modes 1, L, LA and I;16 of Pillow), and RGB otherwise. Transparent pixels are laid over white, 16 bits are
reduced to the upper 8, photographs are turned upright as their EXIF orientation says, and animations give their first
frame.

Splits: where images lie in subfolders `train` and `test` of the directory, those are the splits, with `validation` if
it is there, and images elsewhere are left out. Otherwise a tenth is the test split: an image belongs to it if the
SHA-256 of its relative path, as a fraction, is below 0.1, whatever other images there are. (Of few images, where that
would leave a split empty, the one with the lowest fraction is the test split, or the one with the highest the training
split.)

Labels: the subfolders of the directory, or of its split folders, are the classes, sorted by name. Where all images lie
directly in there, there is one class, 0.
"""

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import ExifTags, Image, ImageOps

from lotto_jax import progress
from lotto_jax.data import cache, decoding, pixels
from lotto_jax.data.ahead import ahead
from lotto_jax.data.dataset import SPLITS, zeros

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TEST_SHARE = 0.1
HEADERS_AHEAD = 64


class Listing(NamedTuple):
    """The images of a directory, not yet opened.

    Attributes:
      root: the directory.
      paths: by split, relative to the directory.
      labels: by split, int32 [n].
      label_names: of the classes; none where there are no class folders.
    """

    root: Path
    paths: dict[str, list[str]]
    labels: dict[str, Int[np.ndarray, "n"]]
    label_names: list[str]


def load(name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    """A digest of the files' relative paths, sizes and times of change, and the arrays (see `sources.Source`).

    The digest is part of the cache's key: after a change of the directory its images are decoded again.

    Raises:
      ValueError: if there is no such directory, it has too few images, or one of them cannot be read.
    """
    listing = _list(data_dir)
    version = _digest(listing)
    return version, decoding.cached(f"folder-{version}", image_size, functools.partial(_decode, listing, image_size))


def outline(name: str, data_dir: str, image_size: int, examples: int) -> dict[str, np.ndarray]:
    """The labels, and zeros in place of the images; reads what `image_shape` reads.

    Raises:
      ValueError: as `image_shape`.
    """
    listing = _list(data_dir)
    shape = _image_shape(listing, image_size)
    arrays = {f"{split}_image": zeros((len(label), *shape), np.uint8) for split, label in listing.labels.items()}
    arrays |= {f"{split}_label": label for split, label in listing.labels.items()}
    return arrays | ({"label_names": np.array(listing.label_names)} if listing.label_names else {})


def image_shape(name: str, data_dir: str, image_size: int) -> tuple[int, int, int]:
    """(height, width, channels) of the images, of which it reads headers only and no more of them than it needs.

    Raises:
      ValueError: as `load`, or if `image_size` is 0 and the images differ in size.
    """
    return _image_shape(_list(data_dir), image_size)


def classes(name: str, data_dir: str, image_size: int) -> int:
    """Number of class folders, or 1.

    Raises:
      ValueError: if there is no such directory, or it has too few images.
    """
    return len(_list(data_dir).label_names) or 1


def _list(data_dir: str) -> Listing:
    if not data_dir:
        raise ValueError(
            'config.dataset.data_dir is empty, but config.dataset.name is "folder"; set it to the directory of images.'
        )
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise ValueError(f"config.dataset.data_dir is {data_dir!r}, which is no directory; set it to one with images.")
    found = _find(root)
    if len(found) < 2:
        raise ValueError(
            f"config.dataset.data_dir is {data_dir!r}, which holds {'one image' if found else 'no images'} "
            f"({', '.join(SUFFIXES)}); it takes at least two, one of them for the test split."
        )
    top = {path.split("/")[0] for path in found if "/" in path}
    if {"train", "test"} <= top:
        paths = {split: [p for p in found if p.startswith(f"{split}/")] for split in SPLITS if split in top}
        inside = {split: [p.removeprefix(f"{split}/") for p in paths[split]] for split in paths}
    elif there := top & {"train", "test"}:
        split = there.pop()
        raise ValueError(
            f"config.dataset.data_dir is {data_dir!r}, which has images in a folder {split} but none in a folder "
            f"{'test' if split == 'train' else 'train'}; add that one, or give {split} another name."
        )
    else:
        inside = paths = _divide(found)
    # Class of every image; the empty one has the images outside of the class folders.
    classes = {split: [p.split("/")[0] if "/" in p else "" for p in inside[split]] for split in paths}
    label_names = sorted(set(itertools.chain(*classes.values())))
    if label_names == [""]:
        return Listing(root, paths, {split: np.zeros(len(paths[split]), np.int32) for split in paths}, [])
    if "" in label_names:
        stray = next(paths[split][classes[split].index("")] for split in paths if "" in classes[split])
        raise ValueError(
            f"config.dataset.data_dir is {data_dir!r}, where {stray} lies next to folders of images, which stand for "
            "classes; move it into one of them, or all images out of them."
        )
    number = {label: i for i, label in enumerate(label_names)}
    labels = {split: np.array([number[c] for c in classes[split]], np.int32) for split in paths}
    return Listing(root, paths, labels, label_names)


def _find(root: Path) -> list[str]:
    """Relative paths of the images below `root`, with slashes, sorted."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, files in os.walk(root, followlinks=True, onerror=fail):
        here = Path(parent)
        folders[:] = [f for f in folders if f[0] != "." and not _loops(here / f)]
        images = [f for f in files if f[0] != "." and f.lower().endswith(SUFFIXES)]
        found += [(here / f).relative_to(root).as_posix() for f in images]
    return sorted(found)


def _loops(folder: Path) -> bool:
    """Whether it is a link to a folder on the way to it, so that following it would never end."""
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.parents}


def _divide(paths: list[str]) -> dict[str, list[str]]:
    """The training and the test split of at least two images."""
    fraction = {p: int.from_bytes(hashlib.sha256(os.fsencode(p)).digest()[:8], "big") / 2**64 for p in paths}
    ranked = sorted(paths, key=fraction.__getitem__)
    count = sum(f < TEST_SHARE for f in fraction.values())
    test = set(ranked[: min(max(count, 1), len(paths) - 1)])
    return {"train": [p for p in paths if p not in test], "test": [p for p in paths if p in test]}


def _digest(listing: Listing) -> str:
    digest = hashlib.sha256()
    for path in itertools.chain(*listing.paths.values()):
        try:
            status = (listing.root / path).stat()
        except OSError as error:
            raise _unreadable(listing.root / path, error) from error
        digest.update(os.fsencode(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    return digest.hexdigest()[:16]


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"The image {path} of config.dataset.data_dir cannot be read ({type(error).__name__}: {error}); repair or "
        "remove it."
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image of which only the header is read so far."""
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise _unreadable(path, error) from error


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) of the upright image, and whether it is grayscale."""
    with _opened(path) as image:
        turned = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        size = image.size if turned else image.size[::-1]
        return size, image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def _image_shape(listing: Listing, image_size: int) -> tuple[int, int, int]:
    paths = [listing.root / path for path in itertools.chain(*listing.paths.values())]
    size, channels = (image_size, image_size) if image_size else None, 1
    with (
        ThreadPoolExecutor(decoding.threads()) as pool,
        progress.bar(total=len(paths), desc=f"Headers of {listing.root.name}", unit="image", delay=1) as bar,
        contextlib.closing(ahead(pool, _header, paths, HEADERS_AHEAD)) as headers,
    ):
        for stored, gray in headers:
            bar.update()
            channels = 1 if channels == 1 and gray else 3
            if image_size and channels == 3:
                break
            if not image_size and (size := size or stored) != stored:
                raise ValueError(decoding.sizes_differ(str(listing.root)))
    assert size is not None
    return *size, channels


def _decode(listing: Listing, image_size: int, entry: cache.Writer) -> None:
    """Write every split to the cache."""
    shape = _image_shape(listing, image_size)
    if listing.label_names:
        names = np.array(listing.label_names)
        entry.array("label_names", names.shape, names.dtype).append(names)
    for split, paths in listing.paths.items():
        decode = functools.partial(_decode_block, listing, split, shape[-1], image_size)
        decoding.write(entry, split, shape, (), len(paths), decode, f"{listing.root.name} {split}")


def _decode_block(listing: Listing, split: str, channels: int, image_size: int, block: range) -> decoding.Block:
    chosen = slice(block.start, block.stop)
    images = [_pixels(listing.root / path, channels, image_size) for path in listing.paths[split][chosen]]
    return np.stack(images), listing.labels[split][chosen]


def _pixels(path: Path, channels: int, image_size: int) -> np.ndarray:
    """uint8 [height, width, channels]."""
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened) if "exif" in opened.info else opened
        if image.mode in ("I", "F"):
            raise ValueError("its pixels have 32 bits")
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return pixels.convert(image, channels, image_size)
