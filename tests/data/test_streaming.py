"""Streaming: the right examples in order, a bounded number of chunks ahead, and an honest stall time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lotto_jax.data import streaming
from lotto_jax.data.ahead import ahead
from lotto_jax.data.sources import Split
from lotto_jax.data.streaming import Stream

RNG = np.random.default_rng(0)
SPLIT = Split(RNG.integers(0, 256, (50, 4, 4, 3), np.uint8), np.arange(100, dtype=np.int32).reshape(50, 2))


def take(array, chosen):
    return array.take(chosen, axis=0)


@pytest.fixture
def stream():
    stream = Stream(SPLIT)
    yield stream
    stream.close()


def test_chunks_hold_the_examples_that_the_index_names(stream):
    chosen = RNG.integers(0, 50, (6, 2, 3, 5))
    for i, (image, label) in enumerate(stream.chunks(chosen.__getitem__, range(6), take)):
        assert image.shape == (2, 3, 5, 4, 4, 3) and label.shape == (2, 3, 5, 2)
        np.testing.assert_array_equal(image, SPLIT.image[chosen[i]])
        np.testing.assert_array_equal(label, SPLIT.label[chosen[i]])
    assert i == 5


def test_a_chunk_has_as_many_steps_as_its_bytes_allow(stream, monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 10 * 8 * 48)
    assert stream.chunk_steps(8) == 10
    assert stream.chunk_steps(1000) == 1


def test_never_more_than_depth_results_are_made_ahead():
    made = []
    with ThreadPoolExecutor(4) as executor:
        results = ahead(executor, lambda x: made.append(x) or x, range(20), depth=3)
        for x in range(10):
            assert next(results) == x
            assert max(made) <= x + 3
        results.close()
    assert len(made) <= 13


def test_results_come_in_order_and_an_exception_in_its_place():
    def invert(x):
        time.sleep(0.01 * (4 - x))
        return 6 // (2 - x)

    with ThreadPoolExecutor(4) as executor:
        results = ahead(executor, invert, range(5), depth=4)
        assert [next(results), next(results)] == [3, 6]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_the_next_chunk_is_gathered_while_the_caller_works_on_this_one(stream):
    """No clock: the caller of chunk i waits inside it for the gathering of chunk i + 1."""
    gathered = [threading.Event() for _ in range(4)]

    def index(i):
        gathered[i].set()
        return np.zeros((1, 1, 1), int)

    for i, _ in enumerate(stream.chunks(index, range(4), take)):
        assert i == 3 or gathered[i + 1].wait(timeout=60)


def test_the_stall_is_what_the_caller_waited_and_not_what_it_worked(stream):
    def slow(i):
        time.sleep(0.05)
        return np.zeros((1, 1, 1), int)

    began = time.monotonic()
    list(stream.chunks(slow, range(4), take))
    assert 0.2 <= stream.stall_seconds <= time.monotonic() - began
    before = stream.stall_seconds
    ready = stream.chunks(lambda i: np.zeros((1, 1, 1), int), range(2), take)
    next(ready)
    time.sleep(0.5)  # the caller's own work
    after_first = stream.stall_seconds
    next(ready)
    assert stream.stall_seconds - after_first < 0.4 and after_first >= before
