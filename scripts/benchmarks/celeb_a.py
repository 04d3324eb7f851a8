"""A `celeb_a` directory of random images, made by TFDS's own writer with the feature spec of its real builder."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def _jpeg(rng: np.random.Generator) -> bytes:
    """An image of CelebA's size whose colors change slowly, as they do in photographs."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).resize((178, 218)).save(file, "JPEG")
    return file.getvalue()


def write(directory: Path, counts: Mapping[str, int], different: int = 200) -> None:
    """Write splits of so many images to `directory`/celeb_a; after `different` images they repeat."""
    from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder as celeb_a

    class CelebA(celeb_a.Builder, skip_registration=True):  # type: ignore[call-arg]
        name = "celeb_a"
        pkg_dir_path = celeb_a.Builder._get_pkg_dir_path()

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            return {split: self._generate_examples(count) for split, count in counts.items()}

        def _generate_examples(self, count: int) -> Iterator[Any]:
            rng = np.random.default_rng(count)
            files = [_jpeg(rng) for _ in range(min(different, count))]
            for i in range(count):
                example = {
                    "image": io.BytesIO(files[i % len(files)]),
                    "landmarks": dict.fromkeys(celeb_a.LANDMARK_HEADINGS, i),
                    "attributes": {name: bool(rng.integers(2)) for name in celeb_a.ATTR_HEADINGS},
                    "identity": dict.fromkeys(celeb_a.IDENTITY_HEADINGS, i),
                }
                yield i, example

    CelebA(data_dir=directory, file_format="array_record").download_and_prepare()
