"""The device mesh of a run: axes `ticket` (tickets are independent) and `data` (the batch of every ticket)."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def make(tickets: int, batch_size: int, devices: int = 0) -> Mesh:
    """A mesh over `devices` devices (0: all).

    On the ticket axis lie as many as divide `tickets` (with 1, none: each ticket has them all), on the data axis the
    rest; devices that fit neither stay unused.

    Raises:
      ValueError: if that leaves a process without a device.
    """
    count = devices or jax.device_count()
    ticket = math.gcd(tickets, count)
    data = math.gcd(batch_size, count // ticket)
    used = jax.devices()[: ticket * data]
    if not devices and len({device.process_index for device in used}) < jax.process_count():
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
