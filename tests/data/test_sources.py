"""Sources: exact pixels, explicit splits, a cache that is verified, and messages that help."""

import io
import shutil
import sys
import time
import types
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from lotto_jax.data import cache, decoding, sources
from lotto_jax.data import tfds as tfds_source


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small dataset with an image and a label, written by TFDS itself without TensorFlow."""
    import tensorflow_datasets as tfds

    class TinyShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(6, 5, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
            )
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(20), "test": self._generate_examples(7)}

        def _generate_examples(self, count):
            rng = np.random.default_rng(count)
            for i in range(count):
                png = io.BytesIO()  # arrays would be encoded with TensorFlow
                Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).save(png, "PNG")
                png.seek(0)
                yield i, {"image": png, "label": i % 4}

    directory = tmp_path_factory.mktemp("tfds")
    TinyShapes(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


@pytest.fixture
def tfds_dir(written, tmp_path, monkeypatch):
    """The written dataset, with an empty cache."""
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / "cache"))
    return written


def stored(tmp_path):
    return next((tmp_path / "cache" / "datasets").iterdir())


def test_tfds_images_are_decoded_once_and_mapped_from_the_cache_after(tfds_dir, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    first = sources.load("tiny_shapes", str(tfds_dir))
    assert first.version == "1.2.0" and first.image_shape == (6, 5, 3)
    direct = tfds.builder_from_directory(tfds_dir / "tiny_shapes" / "1.2.0").as_data_source(split="test")
    np.testing.assert_array_equal(first.test.image, np.stack([x["image"] for x in direct]))
    np.testing.assert_array_equal(first.test.label, [x["label"] for x in direct])
    monkeypatch.setattr(tfds, "builder_from_directory", None)  # a second decoding would fail
    again = sources.load("tiny_shapes", str(tfds_dir))
    assert isinstance(again.train.image.base, np.memmap) or isinstance(again.train.image, np.memmap)
    np.testing.assert_array_equal(again.train.image, first.train.image)


@pytest.mark.parametrize("damage", ["flip", "truncate", "manifest"])
def test_a_damaged_cache_is_noticed_and_made_again(tfds_dir, tmp_path, damage):
    good = np.array(sources.load("tiny_shapes", str(tfds_dir)).train.image)
    file = stored(tmp_path) / ("manifest.json" if damage == "manifest" else "train_image.npy")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    file.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        again = sources.load("tiny_shapes", str(tfds_dir))
    np.testing.assert_array_equal(again.train.image, good)


def test_splits_are_explicit_and_do_not_overlap(tfds_dir):
    whole = sources.load("tiny_shapes", str(tfds_dir))
    split = sources.load("tiny_shapes", str(tfds_dir), train_examples=9, validation_examples=5)
    np.testing.assert_array_equal(split.train.image, whole.train.image[:9])
    np.testing.assert_array_equal(split.validation.image, whole.train.image[15:])
    assert len(split.test.label) == 7


def test_a_missing_dataset_names_the_place_and_both_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError) as error:
        sources.load("celeb_a")
    text = str(error.value)
    for part in ("celeb_a", str(tmp_path), "config.dataset.data_dir", "pip install tensorflow "):
        assert part in text
    command = text[text.index('python -c "') + len('python -c "') : -1]
    calls = []
    tfds = types.SimpleNamespace(builder=lambda *args, **fields: calls.append((args, fields)) or mock.Mock())
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    exec(command)
    assert calls == [(("celeb_a",), {"data_dir": str(tmp_path), "file_format": "array_record"})]


def test_an_outline_has_the_shapes_of_what_is_loaded_without_decoding(tfds_dir, tmp_path):
    for name, directory, fields in (
        ("digits", "", {"validation_examples": 100, "image_size": 16}),
        ("tiny_shapes", str(tfds_dir), {"train_examples": 12, "device_budget_mb": 0.0}),
    ):
        outline = sources.outline(name, directory, **fields)
        assert not (tmp_path / "cache").exists()
        for found, loaded in zip(outline, sources.load(name, directory, **fields), strict=True):
            if isinstance(loaded, sources.Split):
                assert [(a.shape, a.dtype) for a in found] == [(a.shape, a.dtype) for a in loaded]
        assert (outline.classes, outline.streamed) == (10 if name == "digits" else 4, name == "tiny_shapes")


def test_the_outline_of_a_dataset_that_is_not_prepared_needs_its_size(tmp_path):
    with pytest.raises(ValueError, match="How many examples cifar10 has is not known"):
        sources.outline("cifar10", str(tmp_path))
    outline = sources.outline("cifar10", str(tmp_path), train_examples=50_000)
    assert outline.train.image.shape == outline.test.image.shape == (50_000, 32, 32, 3) and outline.classes == 10
    assert outline.train.image.nbytes == 50_000 * 3072 and outline.train.image.base.nbytes == 1  # takes no memory


def test_the_bundled_digits_are_the_1797_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = sources.load("digits")
    image = np.concatenate([digits.train.image, digits.test.image])
    label = np.concatenate([digits.train.label, digits.test.label])
    assert image.dtype == np.uint8 and image.shape == (1797, 8, 8, 1) and label.dtype == np.int32
    originals = {
        (tuple(np.round(i.reshape(-1) * 255 / 16).astype(int)), t)
        for i, t in zip(*load_digits(return_X_y=True), strict=True)
    }
    assert {(tuple(map(int, i.reshape(-1))), int(t)) for i, t in zip(image, label, strict=True)} == originals


def test_real_mnist_has_its_shape_and_a_second_start_takes_less_than_a_second(data_dir):
    first = sources.load("mnist", data_dir)
    assert first.train.image.shape == (60_000, 28, 28, 1) and first.test.image.shape == (10_000, 28, 28, 1)
    assert np.bincount(first.test.label).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    start = time.perf_counter()
    sources.load("mnist", data_dir)
    assert time.perf_counter() - start < 1.0


def test_digits_can_be_enlarged():
    stored, large = sources.load("digits"), sources.load("digits", image_size=32)
    assert large.image_shape == (32, 32, 1) and large.label_names == tuple("0123456789")
    np.testing.assert_array_equal(large.train.label, stored.train.label)
    blocks = large.test.image.reshape(-1, 8, 4, 8, 4, 1).mean((2, 4))
    assert np.abs(blocks - stored.test.image).mean() < 12  # of 255; bicubic smooths the edges


def test_a_size_crops_to_the_centered_square_and_is_cached_beside_the_stored_one(tfds_dir):
    dataset = sources.load("tiny_shapes", str(tfds_dir), image_size=5)
    np.testing.assert_array_equal(dataset.test.image, sources.load("tiny_shapes", str(tfds_dir)).test.image[:, :5])
    assert dataset.validation.image.shape == (0, 5, 5, 3)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('"array_record"', '"tfrecord"', ("tfrecord", "file_format='array_record'")),
        ('"name": "test"', '"name": "dev"', ("tiny_shapes", "train, dev", "train and test")),
    ],
)
def test_a_dataset_that_cannot_be_read_says_why(tfds_dir, tmp_path, old, new, parts):
    shutil.copytree(tfds_dir / "tiny_shapes", tmp_path / "tiny_shapes")
    info = tmp_path / "tiny_shapes" / "1.2.0" / "dataset_info.json"
    assert old in info.read_text()
    info.write_text(info.read_text().replace(old, new))
    with pytest.raises(ValueError) as error:
        sources.load("tiny_shapes", str(tmp_path))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("features", "parts"),
    [
        ({}, ("image",)),
        ({"image": {"dtype": "uint16", "shape": (4, 4, 1)}}, ("8-bit",)),
        ({"image": {"dtype": "uint8", "shape": (4, 4, 2)}}, ("1, 3 or 4 channels",)),
        ({"image": {"dtype": "uint8", "shape": (None, None, 3)}}, ("config.dataset.image_size is 0", "differ")),
    ],
)
def test_images_that_cannot_be_used_are_named(features, parts):
    import tensorflow_datasets as tfds

    encodings = {"encoding_format": "png"}
    made = {
        key: tfds.features.Image(shape=f["shape"], dtype=np.dtype(f["dtype"]).type, **encodings)
        for key, f in features.items()
    }
    with pytest.raises(ValueError) as error:
        tfds_source._image_shape("shapes", made, 0)
    for part in ("config.dataset", "shapes", *parts):
        assert part in str(error.value)


def test_a_dataset_without_labels_is_refused():
    with pytest.raises(ValueError, match="no labels"):
        tfds_source._labels("shapes", {})


def test_many_images_are_decoded_in_blocks_of_some_megabytes(tmp_path):
    """Of large images, a block has fewer, so that what threads have ready fits in memory."""
    lengths = []

    def decode(block):
        lengths.append(len(block))
        return np.full((len(block), 1024, 1024, 1), block.start, np.uint8), np.array(block, np.int32)

    with cache.writer(tmp_path / "entry") as entry:
        decoding.write(entry, "train", (1024, 1024, 1), (), 20, decode, "large")
    assert sorted(lengths) == [4, 8, 8]
    arrays = cache.read(tmp_path / "entry")
    assert arrays["train_label"].tolist() == list(range(20))
    assert arrays["train_image"][:, 0, 0, 0].tolist() == [0] * 8 + [8] * 8 + [16] * 4


def test_the_number_of_classes_is_that_of_names_attributes_or_labels():
    split = lambda label: sources.Split(np.zeros((4, 2, 2, 1), np.uint8), np.asarray(label, np.int32))  # noqa: E731
    data = sources.Dataset("x", "1.0.0", *[split([0, 2, 1, 0])] * 3, (), False)
    assert data.classes == 3 and data._replace(label_names=("a", "b", "c", "d")).classes == 4
    assert data._replace(train=split([[0, 1]] * 4)).classes == 2
    assert sources.classes("digits") == 10
    assert sources.classes("cifar10") == 10 and sources.classes("celeb_a") == 40


def test_only_the_examples_of_some_classes_in_their_order():
    whole, some = sources.load("digits"), sources.load("digits", classes=(7, 2))
    assert set(some.train.label.tolist()) == {2, 7} and some.label_names == whole.label_names
    for split in ("train", "test"):
        every, own = getattr(whole, split), getattr(some, split)
        where = [i for i, label in enumerate(every.label) if label in (2, 7)]
        np.testing.assert_array_equal(own.image, every.image[where])
        np.testing.assert_array_equal(own.label, every.label[where])
    assert sources.outline("digits", classes=(7, 2)).fingerprint == some.fingerprint != whole.fingerprint
    held = sources.load("digits", classes=(7, 2), train_examples=20, validation_examples=30)
    assert (len(held.train.label), len(held.validation.label)) == (20, 30)


def test_a_dataset_that_is_misspelt_is_guessed(tmp_path):
    (tmp_path / "mnist").mkdir()
    with pytest.raises(ValueError, match=r"'mnits' in \S+ \(did you mean config.dataset.name=mnist\?\); point"):
        sources.load("mnits", str(tmp_path))


def test_classes_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"config.dataset.classes has 10, but no training example of digits is of"):
        sources.load("digits", classes=(3, 10))


def test_attributes_are_no_classes(monkeypatch):
    own = types.SimpleNamespace(load=lambda *_: ("", {"train_label": np.zeros((4, 2), np.int32)}))
    monkeypatch.setitem(sources.SOURCES, "digits", own)
    with pytest.raises(
        ValueError, match=r"config.dataset.classes is \(1,\), but digits has attributes; leave it empty"
    ):
        sources.load("digits", classes=(1,))
