"""A dataset as the training loop takes it: whole on the devices, or streamed from the host with the same results."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from lotto_jax.data import streaming
from lotto_jax.data.sources import Dataset, Split
from lotto_jax.data.streaming import Stream
from lotto_jax.objectives.state import Batch, TrainState
from lotto_jax.training import hosts, loop, mesh, packing, shards
from lotto_jax.training.packing import Examples
from lotto_jax.training.placement import Placement


class _Placed(NamedTuple):
    """The two splits on the devices of a mesh; a training split that streams is not there."""

    train: Examples | None
    held_out: Examples


class Feed:
    """Serves all phases of a run, and brings the dataset to the devices once.

    Attributes:
      dataset: what it serves.
      batch_size: examples a step and ticket.
      steps: of every ticket.
    """

    def __init__(self, dataset: Dataset, batch_size: int, epochs: int, held_out: str):
        """`held_out` is the split that tickets are evaluated on, `test` or `validation`."""
        self.dataset, self.batch_size = dataset, batch_size
        self.steps = epochs * self.epoch_steps
        self._held_out: Split = getattr(dataset, held_out)
        self._placed: dict[Mesh, _Placed] = {}
        self._stream = Stream()

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return len(self.dataset.train.label) // self.batch_size

    @property
    def batch(self) -> Batch:
        """A training batch as shapes."""
        shape = lambda x: jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype)  # noqa: E731
        return jax.eval_shape(Batch, *map(shape, self.dataset.train))

    def held_out(self, placement: Placement) -> Examples:
        """The split that tickets are evaluated on, on every device."""
        return self._on(placement.mesh).held_out

    def outline(self, tickets: int, seeds: int, placement: Placement) -> tuple[Examples | loop.Streamed, Examples]:
        """What `pieces` yields for so many tickets of so many seeds, filled up, and the held-out split, as shapes."""
        everywhere = mesh.replicated(placement.mesh)

        def shapes(split: Split, axes: tuple[int, ...], sharding: jax.sharding.Sharding) -> Examples:
            one = packing.pack(*(array[:1] for array in split))
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape[1:]), x.dtype, sharding=sharding), one)

        train, held_out = self.dataset.train, shapes(self._held_out, (len(self._held_out.label),), everywhere)
        if not self.dataset.streamed:
            return shapes(train, (len(train.label),), everywhere), held_out
        order = np.pad(np.arange(tickets) % seeds, (0, -tickets % placement.abreast), "edge")
        divided, steps = self._divide(order, placement)
        first: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
        place: Any = jax.ShapeDtypeStruct(order.shape, jnp.int32, sharding=mesh.by_ticket(placement.mesh))
        chunk = shapes(train, (steps, divided.places, self.batch_size), shards.sharding(placement.mesh))
        return loop.Streamed(chunk, first, place), held_out

    def first_batches(self, keys: Key[Array, "tickets"], count: int, placement: Placement) -> Batch:
        """The first `count` batches of tickets with these keys, leaves [tickets, count, batch, ...]."""
        numbers = self._numbers(hosts.gathered(keys), count)(0)
        chosen = np.swapaxes(numbers, 0, 1)
        split = self.dataset.train
        return placement.place(Batch(jnp.asarray(split.image[chosen]), jnp.asarray(split.label[chosen])))

    def pieces(
        self, states: TrainState, start: int, stop: int, placement: Placement
    ) -> Iterator[tuple[int, Examples | loop.Streamed]]:
        """What `loop.train` takes as data from step `start` to `stop`, in pieces, each with the step that ends it.

        `states` are filled up (`Placement.fill`).
        """
        resident = self._on(placement.mesh).train
        if resident is not None:
            yield stop, resident
            return
        key_data, order = np.unique(jax.random.key_data(hosts.gathered(states.key)), axis=0, return_inverse=True)
        keys, order = jax.random.wrap_key_data(jnp.asarray(key_data)), order.reshape(-1)
        divided, steps = self._divide(order, placement)
        place = placement.place(divided.place(order).astype(np.int32))
        numbers = self._numbers(keys[divided.of_process(jax.process_index())], steps)
        examples = packing.pack(*map(np.asarray, self.dataset.train))  # without the overhead of np.memmap

        def gather(first: int) -> Examples:
            chosen = numbers(first)
            chunk = jax.tree.map(lambda array: shards.gather(array, chosen, divided, placement.mesh), examples)
            return jax.block_until_ready(chunk)

        firsts = range(start, stop, steps)
        for first, chunk in zip(firsts, self._stream.chunks(gather, firsts), strict=True):
            yield min(first + steps, stop), loop.Streamed(chunk, jnp.int32(first), place)

    def _divide(self, order: np.ndarray, placement: Placement) -> tuple[shards.Shards, int]:
        """How streamed batches of tickets with these orders are divided, and the steps of a piece."""
        divided = shards.divide(order, self.batch_size, mesh.processes(placement.mesh))
        step_bytes = divided.host_examples * self.dataset.train.image[0].nbytes
        return divided, min(streaming.chunk_steps(step_bytes), self.steps)

    def _numbers(self, keys: jax.Array, steps: int) -> Callable[[int], np.ndarray]:
        """The examples of so many steps from a given one on, [steps, orders, batch]."""
        n = len(self.dataset.train.label)
        return lambda first: jax.device_get(
            loop.example_numbers(keys, jnp.int32(first), steps=steps, n=n, batch_size=self.batch_size)
        )

    def _on(self, devices: Mesh) -> _Placed:
        """The splits on a mesh; from another mesh they are copied, if at all, between devices."""
        if devices not in self._placed:
            largest = max(self._placed, key=lambda placed: placed.size, default=None)
            source = (
                self._placed[largest]
                if largest is not None
                else _Placed(
                    None if self.dataset.streamed else packing.pack(*self.dataset.train),
                    packing.pack(*self._held_out),
                )
            )
            self._placed[devices] = hosts.place(source, mesh.replicated(devices))
        return self._placed[devices]

    @property
    def stall_seconds(self) -> float:
        """How long training has waited for streamed data so far."""
        return self._stream.stall_seconds

    def close(self) -> None:
        """Stop gathering."""
        self._stream.close()
