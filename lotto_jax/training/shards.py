"""Which streamed examples a device holds, and which of them a process gathers for its devices.

A device needs the orders of its own tickets and its own part of every batch. Orders are numbered, and those of a slice
of the mesh's ticket axis are taken as a window of neighbors, as wide as the widest slice needs: on the devices, a chunk
is an array [steps, places, batch, ...] with one window of places after the other. What several devices of a process
need is gathered once.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int, Shaped


class Shards(NamedTuple):
    """How the batches of a chunk are divided.

    Attributes:
      first: first order in the window of every slice of the ticket axis.
      width: orders in a window.
      batch_size: examples of a batch, divided equally on the data axis.
      processes: the process that every device of the mesh belongs to.
    """

    first: Int[np.ndarray, "slices"]
    width: int
    batch_size: int
    processes: Int[np.ndarray, "slices parts"]

    @property
    def places(self) -> int:
        """Orders in all windows together."""
        return len(self.first) * self.width

    @property
    def host_examples(self) -> int:
        """The most examples of a step that a process gathers."""
        needs = [self.of_process(process) for process in np.unique(self.processes)]
        return max((orders.stop - orders.start) * (part.stop - part.start) for orders, part in needs)

    def place(self, order: Int[np.ndarray, "tickets"]) -> Int[np.ndarray, "tickets"]:
        """Where the order of each ticket lies on the axis of places."""
        by_slice = order.reshape(len(self.first), -1)
        windows = np.arange(0, self.places, self.width)
        return (by_slice - self.first[:, None] + windows[:, None]).reshape(-1)

    def of_process(self, process: int) -> tuple[slice, slice]:
        """The orders, and the part of every batch, that hold all that the devices of a process need."""
        slices, parts = np.nonzero(self.processes == process)
        size = self.batch_size // self.processes.shape[1]
        first = self.first[slices]
        orders = slice(int(first.min()), int(first.max()) + self.width)
        return orders, slice(int(parts.min()) * size, (int(parts.max()) + 1) * size)

    def of_device(self, index: tuple[slice, ...], process: int) -> tuple[slice, slice]:
        """What a device of a process takes of that: orders and examples, counted from the first that are gathered.

        Args:
          index: what the device holds of the chunk, [steps, places, batch, ...].
          process: that it belongs to.
        """
        orders, part = self.of_process(process)
        first = int(self.first[(index[1].start or 0) // self.width]) - orders.start
        begin, end, _ = index[2].indices(self.batch_size)
        return slice(first, first + self.width), slice(begin - part.start, end - part.start)


def divide(order: Int[np.ndarray, "tickets"], batch_size: int, processes: Int[np.ndarray, "slices parts"]) -> Shards:
    """Divide the batches of tickets among devices.

    Args:
      order: which order of the examples each ticket follows, from 0 with none left out. Slices have equally many
        tickets.
      batch_size: a multiple of the parts.
      processes: the process that every device of the mesh, [ticket, data], belongs to.
    """
    by_slice = order.reshape(len(processes), -1)
    width = int(np.ptp(by_slice, axis=1).max()) + 1
    first = np.minimum(by_slice.min(axis=1), order.max() + 1 - width)
    return Shards(first, width, batch_size, processes)


def put(
    gathered: Shaped[np.ndarray, "steps orders part *example"], divided: Shards, mesh: Mesh
) -> Shaped[jax.Array, "steps places batch *example"]:
    """A chunk on the devices of all processes, of what this one has gathered (`Shards.of_process`) for its own."""
    process = jax.process_index()
    shape = (len(gathered), divided.places, divided.batch_size, *gathered.shape[3:])
    on_device = lambda index: gathered[:, *divided.of_device(index, process)]  # noqa: E731
    return jax.make_array_from_callback(shape, NamedSharding(mesh, P(None, "ticket", "data")), on_device)
