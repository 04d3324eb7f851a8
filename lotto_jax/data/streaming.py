"""Batches of a split that stays on disk, gathered on the host while the device trains on those before."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from lotto_jax.data.ahead import ahead
from lotto_jax.data.sources import Split

CHUNK_BYTES = 1 << 28  # of images that go to the device at once; up to four such chunks lie there
DEPTH = 2  # chunks made ahead of the one in use

Placed = TypeVar("Placed")


class Stream:
    """Gathers the examples of chunks of steps ahead of their use, on a thread of its own.

    Attributes:
      split: where the examples come from, as a rule mapped from the cache.
      stall_seconds: how long `chunks` has kept its callers waiting so far.
    """

    def __init__(self, split: Split):
        self.split = Split(*map(np.asarray, split))  # without the overhead of np.memmap
        self.stall_seconds = 0.0
        self._executor = ThreadPoolExecutor(1, "stream")

    def chunk_steps(self, examples: int) -> int:
        """Steps of so many examples each that fit in a chunk; at least one."""
        return max(1, CHUNK_BYTES // (examples * self.split.image[0].nbytes))

    def chunks(
        self,
        index: Callable[[int], Int[np.ndarray, "steps orders batch"]],
        firsts: Iterable[int],
        place: Callable[[Split], Placed],
    ) -> Iterator[Placed]:
        """For every step of `firsts` the examples `index(step)`, placed.

        Args:
          index: numbers of the examples of the steps from a given one on.
          firsts: first step of every chunk.
          place: brings gathered examples to the devices and returns when they are there: images uint8 [steps, orders,
            batch, height, width, channels], labels int32 [steps, orders, batch, ...].
        """

        def gather(first: int) -> Placed:
            chosen = index(first)
            return place(Split(*(array.take(chosen, axis=0) for array in self.split)))

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
