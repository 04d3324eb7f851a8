"""Functions of the user's own: called with what they take, checked in what they return."""

import sys
import types

import numpy as np
import pytest

from lotto_jax.data import sources

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 8, 8, 3), np.uint8) for n in (20, 7))
LABELS = {"train_label": np.arange(20) % 4, "test_label": np.arange(7) % 3}


@pytest.fixture
def own(monkeypatch):
    """Makes a function importable; returns its name in a configuration."""

    def register(function):
        module = types.ModuleType("their_data")
        module.load = function
        monkeypatch.setitem(sys.modules, "their_data", module)
        return "their_data:load"

    return register


@pytest.fixture
def returning(own):
    """The name of a function that returns the usual dict with some entries changed; None removes one."""

    def register(**changed):
        made = {"train_image": TRAIN, "test_image": TEST} | changed
        return own(lambda: {key: value for key, value in made.items() if value is not None})

    return register


def refusal(name, **fields):
    with pytest.raises(ValueError) as error:
        sources.load(name, **fields)
    text = str(error.value)
    assert "config.dataset.name is 'their_data:load'" in text and "\n" not in text and text.endswith(".")
    return text


def test_arrays_without_labels_have_one_class(returning):
    name = returning()
    dataset = sources.load(name)
    assert dataset.name == name and dataset.version == ""
    np.testing.assert_array_equal(dataset.train.image, TRAIN)
    np.testing.assert_array_equal(dataset.test.image, TEST)
    assert dataset.train.label.tolist() == [0] * 20 and dataset.train.label.dtype == np.int32
    assert dataset.validation.image.shape == (0, 8, 8, 3) and dataset.classes == 1 == sources.classes(name)
    assert dataset.image_shape == sources.image_shape(name) == (8, 8, 3)


def test_labels_and_their_names_are_taken(returning):
    name = returning(**LABELS, label_names=["a", "b", "c", "d", "e"])
    dataset = sources.load(name)
    assert dataset.train.label.tolist() == LABELS["train_label"].tolist() and dataset.train.label.dtype == np.int32
    assert dataset.label_names == ("a", "b", "c", "d", "e") and dataset.classes == 5 == sources.classes(name)


def test_classes_are_those_of_all_splits_however_few_examples_are_used(returning):
    name = returning(train_label=np.arange(20) % 4, test_label=np.full(7, 5))
    assert sources.classes(name) == 6 == sources.load(name, train_examples=1).classes


def test_labels_may_be_attributes(returning):
    train, test = (RNG.integers(0, 2, (n, 3)).astype(bool) for n in (20, 7))
    name = returning(train_label=train, test_label=test)
    dataset = sources.load(name)
    assert dataset.classes == 3 == sources.classes(name) and dataset.label_names == ()
    np.testing.assert_array_equal(dataset.train.label, train)
    assert sources.load(returning(train_label=train, test_label=test, label_names=["x", "y", "z"])).classes == 3
    assert "2 label_names for labels of 3 attributes" in refusal(
        returning(train_label=train, test_label=test, label_names=["x", "y"])
    )


def test_examples_are_held_out_as_of_other_datasets(returning):
    own_validation = returning(**LABELS, validation_image=TEST[:3], validation_label=[0, 1, 2])
    dataset = sources.load(own_validation)
    np.testing.assert_array_equal(dataset.validation.image, TEST[:3])
    assert dataset.validation.label.tolist() == [0, 1, 2] and len(dataset.train.image) == 20
    dataset = sources.load(own_validation, train_examples=9, validation_examples=5)
    np.testing.assert_array_equal(dataset.train.image, TRAIN[:9])
    np.testing.assert_array_equal(dataset.validation.image, TRAIN[15:])
    with pytest.raises(ValueError, match="lower train_examples"):
        sources.load(own_validation, train_examples=21)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda data_dir, image_size: (data_dir, image_size), ("/data", 8)),
        (lambda image_size, other=3: (image_size, other), (8, 3)),
        (lambda data_dir: data_dir, "/data"),
        (lambda **fields: fields, {"data_dir": "/data", "image_size": 8}),
        (lambda *, data_dir="": data_dir, "/data"),
        (lambda: (), ()),
    ],
)
def test_the_function_gets_the_fields_that_it_takes(own, function, expected):
    import functools

    got = []

    @functools.wraps(function)
    def recorded(**fields):
        got.append(function(**fields))
        return {"train_image": TRAIN, "test_image": TEST}

    sources.load(own(recorded), "/data", image_size=8)
    assert got == [expected]


def test_a_dataset_may_be_returned(own, returning):
    given = sources.load(returning(**LABELS, validation_image=TEST[:2], validation_label=[1, 1]))
    given = given._replace(name="theirs", version="3.1.0", label_names=("a", "b", "c", "d"), streamed=True)
    name = own(lambda: given)
    dataset = sources.load(name)
    assert (dataset.name, dataset.version, dataset.streamed) == (name, "3.1.0", False)
    assert dataset.label_names == given.label_names
    for split in ("train", "validation", "test"):
        for got, expected in zip(getattr(dataset, split), getattr(given, split), strict=True):
            np.testing.assert_array_equal(got, expected)
    empty = given._replace(validation=sources.Split(*(a[:0] for a in given.train)))
    assert len(sources.load(own(lambda: empty)).validation.image) == 0


def test_mapped_arrays_stay_on_disk_and_are_streamed_past_the_budget(returning, tmp_path):
    np.save(tmp_path / "train.npy", TRAIN)
    name = returning(train_image=np.load(tmp_path / "train.npy", mmap_mode="r"))
    dataset = sources.load(name, device_budget_mb=TRAIN.nbytes / 2**21)
    assert dataset.streamed
    array = dataset.train.image
    while not isinstance(array, np.memmap):
        array = array.base
    np.testing.assert_array_equal(dataset.train.image, TRAIN)


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"train_images": TRAIN}, ("returns train_images;", "train_image, train_label", "label_names")),
        ({"test_image": None}, ("no test_image",)),
        ({"train_image": TRAIN / 255}, ("train_image of dtype float64", "uint8")),
        ({"test_image": TEST[..., 0]}, ("test_image of shape (7, 8, 8)", "[n, height, width, channels]")),
        ({"train_image": TRAIN[:0]}, ("train_image of shape (0, 8, 8, 3)",)),
        ({"train_image": TRAIN[..., :2]}, ("train_image of shape (20, 8, 8, 2)", "1, 3 or 4 channels")),
        ({"test_image": TEST[:, :6]}, ("8x8x3 for training", "6x8x3 in test_image")),
        ({"train_label": LABELS["train_label"]}, ("labels for train only", "train_label, test_label")),
        (LABELS | {"train_label": np.ones(20)}, ("train_label of dtype float64", "integers")),
        (LABELS | {"test_label": np.arange(6)}, ("test_label of shape (6,)", "[7]")),
        (LABELS | {"test_label": np.ones((7, 2), int)}, ("test_label of shape (7, 2)",)),
        (LABELS | {"train_label": np.arange(20) - 1}, ("train_label from -1 to 18", "begin at 0")),
        ({k: np.full((len(v), 2), 2) for k, v in LABELS.items()}, ("train_label from 2 to 2", "0 or 1")),
        (LABELS | {"label_names": ["a", "b", "c"]}, ("3 label_names for labels of 4 classes",)),
    ],
)
def test_what_cannot_be_used_is_named(returning, changed, parts):
    text = refusal(returning(**changed))
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("function", "part"),
    [
        (lambda path, data_dir: None, "needs path, but is called with data_dir and image_size only"),
        (lambda: None, "returns a NoneType"),
        (3, "is not a function (int)"),
    ],
)
def test_functions_that_cannot_be_called_or_return_no_arrays_are_refused(own, function, part):
    assert part in refusal(own(function))


def test_a_size_that_the_function_does_not_give_is_refused(returning):
    text = refusal(returning(), image_size=16)
    assert "config.dataset.image_size is 16" in text and "8x8x3" in text
    assert sources.load(returning(), image_size=8).image_shape == (8, 8, 3)


def test_a_reference_that_cannot_be_resolved_names_the_field():
    for call in (sources.load, sources.image_shape, sources.classes):
        with pytest.raises(ValueError, match=r"^config.dataset.name is 'no_such_module:load', but there is no module"):
            call("no_such_module:load")
