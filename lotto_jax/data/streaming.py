"""Chunks of data that stay on disk, gathered on the host while the device trains on those before."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lotto_jax.data.ahead import ahead

CHUNK_BYTES = 1 << 28  # that a process brings to its devices at once; up to four such chunks lie there
DEPTH = 2  # chunks made ahead of the one in use, each on a thread of its own

Chunk = TypeVar("Chunk")


def chunk_steps(step_bytes: int) -> int:
    """Steps that fit in a chunk, if each takes so many bytes; at least one."""
    return max(1, CHUNK_BYTES // step_bytes)


class Stream:
    """Gathers chunks of steps ahead of their use, on threads of its own.

    Attributes:
      stall_seconds: how long `chunks` has kept its callers waiting so far.
    """

    def __init__(self) -> None:
        self.stall_seconds = 0.0
        self._executor = ThreadPoolExecutor(DEPTH, "stream")

    def chunks(self, gather: Callable[[int], Chunk], firsts: Iterable[int]) -> Iterator[Chunk]:
        """For every step of `firsts` the chunk `gather(step)`; it should be on the devices when `gather` returns."""
        gathered = ahead(self._executor, gather, firsts, DEPTH)
        while True:
            began = time.monotonic()
            chunk = next(gathered, None)
            self.stall_seconds += time.monotonic() - began
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        """Stop gathering."""
        self._executor.shutdown(cancel_futures=True)
