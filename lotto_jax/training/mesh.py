"""The device mesh of a run: axes `ticket` (tickets are independent) and `data` (the batch of every ticket)."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int


def make(tickets: int, batch_size: int, devices: int = 0, among: Sequence[jax.Device] = ()) -> Mesh:
    """A mesh over the first `devices` devices (0: all) of the devices here, or `among` others.

    Every ticket has a device of its own as far as devices go, and the ticket axis is no longer than it has to be for
    the largest share of a device; what is left stays unused. The data axis, on which batches are split, is longer than
    1 only where devices outnumber tickets: as long as divides `batch_size` and the devices and leaves a place for each
    ticket. Then all devices are on the mesh, as TPUs demand of programs whose devices speak to each other, and the
    ticket axis can have more places than there are tickets (`Placement.fill`).

    Raises:
      ValueError: if that leaves a process without a device.
    """
    there = among or jax.devices()
    count = devices or len(there)
    ticket = min(tickets, count)
    ticket = math.ceil(tickets / math.ceil(tickets / ticket))
    data = max(d for d in range(1, count // ticket + 1) if math.gcd(batch_size, count) % d == 0)
    if data > 1:
        ticket = count // data
    used = there[: ticket * data]
    if not (devices or among) and len({device.process_index for device in used}) < jax.process_count():
        if tickets > 1:  # some of the tickets are there twice then
            return Mesh(np.array(there).reshape(count, 1), ("ticket", "data"))
        raise ValueError(
            f"config.train.batch_size is {batch_size}, which gives only {len(used)} of {count} devices something to do "
            f"and a process of the run nothing; make it a multiple of {count}."
        )
    return Mesh(np.array(used).reshape(ticket, data), ("ticket", "data"))


def by_ticket(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the ticket axis: states and masks."""
    return NamedSharding(mesh, P("ticket"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device: the dataset."""
    return NamedSharding(mesh, P())


def processes(mesh: Mesh) -> Int[np.ndarray, "ticket data"]:
    """The process that every device belongs to."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)
