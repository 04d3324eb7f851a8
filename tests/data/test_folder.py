"""Folders of images: which are found, how they are split and labeled, what their pixels become, and the cache."""

import os

import numpy as np
import pytest
from PIL import Image

from lotto_jax.data import pixels, sources


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def color(seed, height=6, width=6):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, image, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **fields)
    return path


def load(root, **fields):
    return sources.load("folder", str(root), **fields)


def refusal(root, **fields):
    with pytest.raises(ValueError) as error:
        load(root, **fields)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


def with_folders(root):
    """Train and test folders with two classes each, one image of its own kind in each place."""
    images = {}
    for i, path in enumerate(["train/b/1.png", "train/a/2.PNG", "train/b/deep/0.bmp", "test/b/x.webp", "test/a/y.tif"]):
        images[path] = color(i)
        save(root / path, images[path], **({"lossless": True} if path.endswith("webp") else {}))
    return images


def test_split_folders_are_the_splits_and_class_folders_the_labels(root):
    images = with_folders(root)
    save(root / "extra" / "left_out.png", color(99))
    dataset = load(root)
    assert dataset.name == "folder" and dataset.label_names == ("a", "b") and dataset.classes == 2
    train = ["train/a/2.PNG", "train/b/1.png", "train/b/deep/0.bmp"]
    np.testing.assert_array_equal(dataset.train.image, [images[p] for p in train])
    assert dataset.train.label.tolist() == [0, 1, 1] and dataset.train.label.dtype == np.int32
    np.testing.assert_array_equal(dataset.test.image, [images["test/a/y.tif"], images["test/b/x.webp"]])
    assert dataset.test.label.tolist() == [0, 1] and dataset.validation.image.shape == (0, 6, 6, 3)
    assert sources.classes("folder", str(root)) == 2
    outline = sources.outline("folder", str(root))
    assert outline.train.image.shape == dataset.train.image.shape and outline.label_names == dataset.label_names
    np.testing.assert_array_equal(outline.test.label, dataset.test.label)


def test_a_validation_folder_is_the_validation_split(root):
    for i, split in enumerate(("train", "validation", "test")):
        save(root / split / "image.png", color(i))
    dataset = load(root)
    np.testing.assert_array_equal(dataset.validation.image, [color(1)])
    assert len(dataset.train.image) == len(dataset.test.image) == 1
    assert dataset.classes == 1 and not dataset.validation.label.any()


def test_files_of_other_kinds_and_hidden_ones_are_left_out_and_links_followed(root, tmp_path):
    save(root / "a.png", color(0))
    save(root / "b.jpg", color(1))
    (root / "labels.txt").write_text("cats")
    (root / "._a.png").write_bytes(b"no image")
    save(root / ".thumbnails" / "c.png", color(2))
    assert len(load(root).train.image) + len(load(root).test.image) == 2
    save(tmp_path / "more" / "d.png", color(3))
    save(tmp_path / "more" / "e.png", color(4))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "loop").symlink_to(linked)
    dataset = load(linked)
    assert len(dataset.train.image) + len(dataset.test.image) == 2 and dataset.label_names == ("more",)


def place(dataset, i):
    """Where the constant image i is: 'train' or 'test'."""
    return [split for split in ("train", "test") if i in getattr(dataset, split).image[:, 0, 0, 0]]


def test_without_split_folders_a_tenth_is_the_test_split_and_stays_it_when_images_are_added(root):
    for i in range(200):
        save(root / f"{i:03d}.png", np.full((2, 2), i, np.uint8))
    first = load(root)
    assert len(first.train.image) + len(first.test.image) == 200
    assert 10 <= len(first.test.image) <= 32  # within about three standard deviations of 20
    before = {i: place(first, i) for i in range(200)}
    assert all(len(splits) == 1 for splits in before.values())
    assert first.train.image[:, 0, 0, 0].tolist() == sorted(first.train.image[:, 0, 0, 0])
    for i in range(200, 250):
        save(root / f"0{i}.png", np.full((2, 2), i, np.uint8))
    second = load(root)
    assert {i: place(second, i) for i in range(200)} == before
    assert len(second.train.image) + len(second.test.image) == 250


def test_the_test_split_is_the_one_that_the_documentation_names(root):
    import hashlib

    names = [f"{i}.png" for i in range(50)]
    for i, name in enumerate(names):
        save(root / name, np.full((2, 2), i, np.uint8))
    expected = [i for i, n in enumerate(names) if int(hashlib.sha256(n.encode()).hexdigest(), 16) < 0.1 * 2**256]
    assert sorted(load(root).test.image[:, 0, 0, 0]) == expected and expected


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_images_no_split_is_empty(root, count):
    for i in range(count):
        save(root / f"{i}.png", color(i))
    dataset = load(root)
    assert len(dataset.train.image) >= 1 and len(dataset.test.image) >= 1
    assert len(dataset.train.image) + len(dataset.test.image) == count


def test_images_are_fitted_to_the_size(root):
    wide, tall = color(0, 8, 12), color(1, 9, 5)
    save(root / "train" / "wide.png", wide)
    save(root / "test" / "tall.png", tall)
    dataset = load(root, image_size=4)
    np.testing.assert_array_equal(dataset.train.image[0], pixels.fit(wide, 4))
    np.testing.assert_array_equal(dataset.test.image[0], pixels.fit(tall, 4))
    assert sources.image_shape("folder", str(root), 4) == (4, 4, 3)
    text = refusal(root)
    assert "config.dataset.image_size is 0" in text and str(root) in text and "differ" in text
    with pytest.raises(ValueError, match="differ in size"):
        sources.image_shape("folder", str(root))


def test_grayscale_images_keep_one_channel_unless_one_has_color(root):
    gray = color(0)[..., 0]
    save(root / "train" / "a.png", gray)
    save(root / "train" / "b.png", Image.fromarray(gray > 127))  # of one bit
    save(root / "test" / "c.png", gray)
    dataset = load(root)
    assert dataset.image_shape == sources.image_shape("folder", str(root)) == (6, 6, 1)
    np.testing.assert_array_equal(dataset.train.image[0, :, :, 0], gray)
    np.testing.assert_array_equal(dataset.train.image[1, :, :, 0], np.where(gray > 127, 255, 0))
    save(root / "test" / "d.png", color(1))
    dataset = load(root)
    assert dataset.image_shape == sources.image_shape("folder", str(root)) == (6, 6, 3)
    np.testing.assert_array_equal(dataset.train.image[0], np.repeat(gray[..., None], 3, axis=2))
    np.testing.assert_array_equal(dataset.test.image[1], color(1))


def test_transparent_pixels_are_laid_over_white(root):
    rgba = np.dstack([color(0), np.zeros((6, 6), np.uint8)])
    rgba[:3, :, 3] = 255
    rgba[0, 0] = (100, 0, 50, 51)  # a fifth opaque
    save(root / "train" / "a.png", rgba)
    palette = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6), "L").convert("P")
    save(root / "test" / "b.gif", palette, transparency=0)
    dataset = load(root)
    assert dataset.image_shape == (6, 6, 3)
    image = dataset.train.image[0]
    np.testing.assert_array_equal(image[1:3], rgba[1:3, :, :3])
    assert (image[3:] == 255).all()
    np.testing.assert_allclose(image[0, 0], 0.2 * np.array([100, 0, 50]) + 0.8 * 255, atol=1)
    assert (dataset.test.image[0, 0, 0] == 255).all() and (dataset.test.image[0, 0, 1] == 1).all()


def test_16_bits_are_reduced_to_the_upper_8(root):
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    save(root / "train" / "a.png", values)
    save(root / "test" / "b.tiff", values)
    dataset = load(root)
    assert dataset.image_shape == (2, 3, 1)
    for split in (dataset.train, dataset.test):
        assert split.image[0, :, :, 0].tolist() == [[0, 0, 1], [128, 254, 255]]


def test_photographs_are_turned_upright(root):
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8] = 255  # the left half, which is on top after a quarter turn to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "train" / "a.jpg", image, exif=exif, quality=95)
    save(root / "test" / "b.png", np.zeros((16, 8, 3), np.uint8))
    dataset = load(root)
    assert dataset.image_shape == (16, 8, 3)
    assert (dataset.train.image[0, :8] > 250).all() and (dataset.train.image[0, 8:] < 5).all()


def test_an_animation_gives_its_first_frame(root):
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
    save(root / "train" / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    save(root / "test" / "b.png", np.zeros((4, 4), np.uint8))
    assert (load(root).train.image == 10).all()


def entries(tmp_path):
    return sorted((tmp_path / "cache" / "datasets").iterdir())


def test_images_are_decoded_once_and_again_after_a_change(root, tmp_path, monkeypatch):
    images = with_folders(root)
    first = load(root)
    with monkeypatch.context() as patch:
        patch.setattr(pixels, "convert", None)  # a second decoding would fail
        again = load(root)
    assert isinstance(again.train.image.base, np.memmap) and again.version == first.version
    np.testing.assert_array_equal(again.train.image, first.train.image)
    assert len(entries(tmp_path)) == 1
    # Same size, another time and content.
    path = root / "train" / "b" / "1.png"
    before = path.stat()
    path.write_bytes((root / "train" / "a" / "2.PNG").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    changed = load(root)
    assert changed.version != first.version and len(entries(tmp_path)) == 2
    np.testing.assert_array_equal(changed.train.image[1], images["train/a/2.PNG"])
    path.rename(path.with_name("renamed.png"))
    renamed = load(root)
    assert renamed.version not in (first.version, changed.version)
    np.testing.assert_array_equal(renamed.train.image[2], images["train/a/2.PNG"])


@pytest.mark.parametrize("content", ["text", "truncated", "32 bits"])
def test_an_image_that_cannot_be_read_is_named_and_leaves_no_entry(root, tmp_path, content):
    with_folders(root)
    path = root / "train" / "a" / "bad.png"
    if content == "text":
        path.write_text("no image")
    elif content == "truncated":
        save(path, color(5, 100, 100))
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path = save(path.with_suffix(".tiff"), Image.fromarray(np.ones((6, 6), np.float32)))
    text = refusal(root, image_size=4)
    assert str(path) in text and "cannot be read" in text and "remove it" in text
    assert not (tmp_path / "cache" / "datasets").exists() or entries(tmp_path) == []
    path.unlink()
    assert len(load(root, image_size=4).train.image) == 3


def test_a_link_to_nothing_is_named(root):
    with_folders(root)
    (root / "train" / "a" / "gone.png").symlink_to(root / "nowhere.png")
    assert str(root / "train" / "a" / "gone.png") in refusal(root)


def test_directories_that_cannot_be_used_are_refused_by_the_field(root):
    assert "config.dataset.data_dir is empty" in refusal("")
    assert f"config.dataset.data_dir is '{root}/none', which is no directory" in refusal(root / "none")
    assert "holds no images (.bmp, " in refusal(root)
    save(root / "train" / "a.png", color(0))
    assert "holds one image" in refusal(root)
    save(root / "train" / "b.png", color(1))
    text = refusal(root)
    assert "in a folder train but none in a folder test" in text and "config.dataset.data_dir" in text
    for call in (sources.image_shape, sources.classes):
        with pytest.raises(ValueError, match="none in a folder test"):
            call("folder", str(root))


def test_an_image_beside_class_folders_is_named(root):
    with_folders(root)
    save(root / "test" / "stray.png", color(1))
    text = refusal(root)
    assert "test/stray.png" in text and "config.dataset.data_dir" in text


def test_only_the_headers_that_tell_the_shape_are_read(root, monkeypatch):
    for i in range(300):
        save(root / f"{i:03d}.png", color(i, 2, 2))
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or original(path))
    monkeypatch.setattr(pixels, "convert", None)
    assert sources.image_shape("folder", str(root), 8) == (8, 8, 3)
    assert 1 <= len(opened) <= 100
    opened.clear()
    assert sources.classes("folder", str(root)) == 1 and opened == []
    assert sources.image_shape("folder", str(root)) == (2, 2, 3)
    assert len(opened) == 300
