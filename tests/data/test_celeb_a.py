"""CelebA, from a directory that TFDS's own writer makes with the feature spec of its real `celeb_a` builder."""

import numpy as np
import pytest

from lotto_jax.data import decoding, pixels, sources
from scripts.benchmarks import celeb_a

COUNTS = {"train": 150, "validation": 5, "test": 3}  # train takes more than two blocks


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    celeb_a.write(directory, COUNTS)
    return str(directory)


@pytest.fixture(scope="module")
def direct(written):
    """The examples as TFDS itself decodes them."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(f"{written}/celeb_a/2.1.0")
    return {split: list(builder.as_data_source(split=split)) for split in COUNTS}


@pytest.fixture
def load(written, tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / "cache"))
    return lambda **fields: sources.load("celeb_a", written, **fields)


def test_images_and_attributes_are_those_that_tfds_reads(load, direct):
    from tensorflow_datasets.datasets.celeb_a.celeb_a_dataset_builder import ATTR_HEADINGS

    dataset = load(image_size=32)
    assert dataset.image_shape == (32, 32, 3) and dataset.label_names == tuple(ATTR_HEADINGS)
    for split, count in COUNTS.items():
        image, label = getattr(dataset, split)
        assert image.shape == (count, 32, 32, 3) and label.shape == (count, 40) and label.dtype == np.int32
        np.testing.assert_array_equal(image, np.stack([pixels.fit(e["image"], 32) for e in direct[split]]))
        for i, attribute in enumerate(dataset.label_names):
            assert label[:, i].tolist() == [e["attributes"][attribute] for e in direct[split]]


def test_decoding_on_one_thread_and_on_many_gives_the_same_bytes(load, tmp_path, monkeypatch):
    files = {}
    for threads in (1, 8):
        monkeypatch.setattr(decoding, "MOST_THREADS", threads)
        monkeypatch.setattr("os.cpu_count", lambda: 8)
        monkeypatch.setattr(decoding, "BLOCK", 16)
        monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / f"threads{threads}"))
        load(image_size=16)
        (entry,) = (tmp_path / f"threads{threads}" / "datasets").iterdir()
        files[threads] = {file.name: file.read_bytes() for file in entry.iterdir()}
    assert files[1] == files[8] and len(files[1]) == 8


def test_each_size_is_an_entry_of_the_cache_and_no_size_keeps_the_stored_pixels(load, direct, tmp_path):
    assert load(image_size=16).image_shape == (16, 16, 3)
    stored = load()
    np.testing.assert_array_equal(stored.test.image, np.stack([e["image"] for e in direct["test"]]))
    assert load(image_size=16).image_shape == (16, 16, 3)
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 2


def test_the_validation_split_is_the_datasets_own_unless_one_is_held_out(load):
    own = load(image_size=8)
    assert len(own.train.label) == 150 and len(own.validation.label) == 5
    held_out = load(image_size=8, validation_examples=30)
    assert len(held_out.train.label) == 120
    np.testing.assert_array_equal(held_out.validation.image, own.train.image[120:])


def test_a_training_split_above_the_budget_is_streamed(load):
    def megabytes(*counts):  # of images and of their 40 attributes
        return sum(counts) * (16 * 16 * 3 + 40 * 4) / 2**20

    assert not load(image_size=16, device_budget_mb=megabytes(150, COUNTS["validation"])).streamed
    assert load(image_size=16, device_budget_mb=0.99 * megabytes(150, COUNTS["validation"])).streamed
    assert not load(image_size=16, train_examples=75, device_budget_mb=megabytes(75, COUNTS["validation"])).streamed
    assert load(image_size=16, train_examples=75, device_budget_mb=megabytes(75)).streamed


def test_a_failure_midway_leaves_no_entry(load, tmp_path, monkeypatch):
    decode, calls = pixels.decode, []

    def fail_late(*args):
        calls.append(args)
        if len(calls) > 100:
            raise OSError("cannot decode")
        return decode(*args)

    monkeypatch.setattr(pixels, "decode", fail_late)
    with pytest.raises(OSError, match="cannot decode"):
        load(image_size=8)
    assert list((tmp_path / "cache" / "datasets").iterdir()) == []
    monkeypatch.setattr(pixels, "decode", decode)
    assert len(load(image_size=8).train.label) == 150
