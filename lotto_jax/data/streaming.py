"""Batches of a split that stays on disk, gathered on the host while the device trains on those before."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from lotto_jax.data.ahead import ahead
from lotto_jax.data.sources import Split

CHUNK_BYTES = 1 << 28  # of images that a process brings to its devices at once; up to four such chunks lie there
DEPTH = 2  # chunks made ahead of the one in use

Gathered = TypeVar("Gathered")


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
        gather: Callable[[np.ndarray, Int[np.ndarray, "steps orders batch"]], Gathered],
    ) -> Iterator[tuple[Gathered, Gathered]]:
        """For every step of `firsts` the examples `index(step)`: images, and labels.

        Args:
          index: numbers of the examples of the steps from a given one on.
          firsts: first step of every chunk.
          gather: takes examples of these numbers, [steps, orders, batch, ...], from an array of all of them, brings
            them to the devices and returns when they are there.
        """

        def chunk(first: int) -> tuple[Gathered, Gathered]:
            chosen = index(first)
            return gather(self.split.image, chosen), gather(self.split.label, chosen)

        gathered = ahead(self._executor, chunk, firsts, DEPTH)
        while True:
            began = time.monotonic()
            found = next(gathered, None)
            self.stall_seconds += time.monotonic() - began
            if found is None:
                return
            yield found

    def close(self) -> None:
        """Stop gathering."""
        self._executor.shutdown(cancel_futures=True)
