"""The device mesh of a run: axes `ticket` (tickets are independent) and `data` (the batch of every ticket)."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def make(tickets: int, batch_size: int, devices: int = 0, among: Sequence[jax.Device] = ()) -> Mesh:
    """A mesh over the first `devices` devices (0: all) of those here, or `among` others.

    On the ticket axis lie as many as divide `tickets` (with 1, none: each ticket has them all), on the data axis the
    rest; devices that fit neither stay unused.
    """
    there = among or jax.devices()
    count = devices or len(there)
    ticket = math.gcd(tickets, count)
    data = math.gcd(batch_size, count // ticket)
    return Mesh(np.array(there[: ticket * data]).reshape(ticket, data), ("ticket", "data"))


def by_ticket(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the ticket axis: states and masks."""
    return NamedSharding(mesh, P("ticket"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device: the dataset."""
    return NamedSharding(mesh, P())
