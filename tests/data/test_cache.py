"""The cache: whole entries or none, found damaged when they are, and never an array in memory."""

import tracemalloc

import numpy as np
import pytest

from lotto_jax.data import cache

BLOCK = np.arange(1 << 18, dtype=np.uint8).reshape(1 << 10, 16, 16)


def fill(directory, blocks):
    with cache.writer(directory) as entry:
        image = entry.array("image", (blocks * len(BLOCK), 16, 16), np.uint8)
        for i in range(blocks):
            image.append(BLOCK + np.uint8(i))


def test_what_is_appended_in_blocks_is_read_as_one_mapped_array(tmp_path):
    fill(tmp_path / "entry", 3)
    with cache.writer(tmp_path / "other") as entry:
        entry.array("number", (2, 2), np.int32).append(np.array([[1, 2], [3, 4]]))
        entry.array("name", (2,), "<U3").append(np.array(["a", "abc"]))
    image = cache.read(tmp_path / "entry")["image"]
    assert isinstance(image, np.memmap)
    np.testing.assert_array_equal(image, np.concatenate([BLOCK, BLOCK + 1, BLOCK + 2]))
    other = cache.read(tmp_path / "other")
    assert other["number"].dtype == np.int32 and other["number"].tolist() == [[1, 2], [3, 4]]
    assert other["name"].tolist() == ["a", "abc"]


def test_writing_and_verifying_take_the_memory_of_some_blocks_whatever_the_size(tmp_path):
    def peak(blocks):
        tracemalloc.start()
        fill(tmp_path / str(blocks), blocks)
        assert len(cache.read(tmp_path / str(blocks))["image"]) == blocks * len(BLOCK)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    small, large = peak(4), peak(40)
    assert large < small + BLOCK.nbytes < 36 * BLOCK.nbytes


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    class Interrupted(Exception):
        pass

    with pytest.raises(Interrupted), cache.writer(tmp_path / "entry") as entry:
        entry.array("image", (2, 16, 16), np.uint8).append(BLOCK[:1])
        raise Interrupted
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_is_not_full_or_gets_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lacks 256"), cache.writer(tmp_path / "entry") as entry:
        entry.array("image", (2, 16, 16), np.uint8).append(BLOCK[:1])
    with pytest.raises(ValueError, match="takes no block"), cache.writer(tmp_path / "entry") as entry:
        entry.array("image", (2, 8, 8), np.uint8).append(BLOCK[:1])
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_write_the_same_entry_the_first_to_finish_is_kept(tmp_path):
    with cache.writer(tmp_path / "entry") as entry:
        entry.array("image", (1, 16, 16), np.uint8).append(BLOCK[:1])
        fill(tmp_path / "entry", 2)
    assert len(cache.read(tmp_path / "entry")["image"]) == 2 * len(BLOCK)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("position", [5, 40, -1])
def test_a_changed_byte_anywhere_in_a_file_is_damage_and_the_entry_is_removed(tmp_path, position):
    fill(tmp_path / "entry", 1)
    file = tmp_path / "entry" / "image.npy"
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.read(tmp_path / "entry") is None
    assert cache.read(tmp_path / "entry") is None  # without a warning


@pytest.mark.parametrize("value", [None, "", "relative/cache"])
def test_only_an_absolute_xdg_cache_home_counts(tmp_path, monkeypatch, value):
    """As the XDG Base Directory Specification has it."""
    monkeypatch.delenv("LOTTO_JAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache.root() == tmp_path / ".cache" / "lotto_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert str(cache.root()) == "/elsewhere/lotto_jax"
    monkeypatch.setenv("LOTTO_JAX_CACHE", "/mine")
    assert str(cache.root()) == "/mine"
