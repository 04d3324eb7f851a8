"""Streaming: chunks in order, a bounded number of chunks ahead, and an honest stall time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lotto_jax.data import streaming
from lotto_jax.data.ahead import ahead
from lotto_jax.data.streaming import Stream


@pytest.fixture
def stream():
    stream = Stream()
    yield stream
    stream.close()


def test_chunks_come_in_order(stream):
    assert list(stream.chunks(lambda first: first**2, range(3, 9))) == [9, 16, 25, 36, 49, 64]


def test_a_chunk_has_as_many_steps_as_its_bytes_allow(monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 10 * 8 * 48)
    assert streaming.chunk_steps(8 * 48) == 10
    assert streaming.chunk_steps(1000 * 48) == 1


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

    def gather(i):
        gathered[i].set()
        return i

    for i in stream.chunks(gather, range(4)):
        assert i == 3 or gathered[i + 1].wait(timeout=60)


def test_the_stall_is_what_the_caller_waited_and_not_what_it_worked(stream):
    def slow(i):
        time.sleep(0.05)
        return i

    began = time.monotonic()
    list(stream.chunks(slow, range(4)))
    assert 0.1 <= stream.stall_seconds <= time.monotonic() - began
    before = stream.stall_seconds
    ready = stream.chunks(lambda i: i, range(2))
    next(ready)
    time.sleep(0.5)  # the caller's own work
    after_first = stream.stall_seconds
    next(ready)
    assert stream.stall_seconds - after_first < 0.4 and after_first >= before
