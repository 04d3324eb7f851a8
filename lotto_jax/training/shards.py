"""Which streamed examples a device holds: the orders of its own tickets, and its own part of every batch.

Orders are numbered, and a slice of the mesh's ticket axis has a window of neighbors among them, as wide as the widest
slice needs. On the devices a chunk is an array [steps, places, batch, ...], on whose axis of places lies one window
after the other. A process computes the numbers of its own orders, and gathers the examples of its own devices.
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
        devices = int(np.bincount(self.processes.reshape(-1)).max())
        return devices * self.width * (self.batch_size // self.processes.shape[1])

    def place(self, order: Int[np.ndarray, "tickets"]) -> Int[np.ndarray, "tickets"]:
        """Where the order of each ticket lies on the axis of places."""
        by_slice = order.reshape(len(self.first), -1)
        windows = np.arange(0, self.places, self.width)
        return (by_slice - self.first[:, None] + windows[:, None]).reshape(-1)

    def of_process(self, process: int) -> slice:
        """The orders that the devices of a process need."""
        first = self.first[np.any(self.processes == process, axis=1)]
        return slice(int(first.min()), int(first.max()) + self.width)

    def of_device(self, index: tuple[slice, ...], process: int) -> tuple[slice, slice]:
        """The orders of its process (the first of these is 0), and the part of every batch, that a device needs.

        Args:
          index: what the device holds of the chunk, [steps, places, batch, ...].
          process: that it belongs to.
        """
        first = int(self.first[(index[1].start or 0) // self.width]) - self.of_process(process).start
        return slice(first, first + self.width), index[2]


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


def sharding(mesh: Mesh) -> NamedSharding:
    """Of a chunk, [steps, places, batch, ...]."""
    return NamedSharding(mesh, P(None, "ticket", "data"))


def gather(
    array: Shaped[np.ndarray, "n *example"], numbers: Int[np.ndarray, "steps orders batch"], divided: Shards, mesh: Mesh
) -> Shaped[jax.Array, "steps places batch *example"]:
    """A chunk on the devices of all processes, each of which gathers what its own devices hold.

    Args:
      array: images or labels of all examples.
      numbers: of the examples, for the orders of this process (`Shards.of_process`).
      divided: how.
      mesh: axes `ticket` and `data`.
    """
    process, shape = jax.process_index(), (len(numbers), divided.places, divided.batch_size, *array.shape[1:])
    on_device = lambda index: array.take(numbers[:, *divided.of_device(index, process)], axis=0)  # noqa: E731
    return jax.make_array_from_callback(shape, sharding(mesh), on_device)
