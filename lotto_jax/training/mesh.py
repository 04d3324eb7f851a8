"""The device mesh of a run: axes `ticket` (tickets are independent) and `data` (the batch of every ticket)."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int


def make(tickets: int, batch_size: int, devices: int = 0) -> Mesh:
    """A mesh over `devices` devices (0: all).

    On the ticket axis lie as many as divide `tickets` (with 1, none: each ticket has them all), on the data axis the
    rest; devices that fit neither stay unused.
    """
    count = devices or jax.device_count()
    ticket = math.gcd(tickets, count)
    data = math.gcd(batch_size, count // ticket)
    return Mesh(np.array(jax.devices()[: ticket * data]).reshape(ticket, data), ("ticket", "data"))


def by_ticket(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the ticket axis: states and masks."""
    return NamedSharding(mesh, P("ticket"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device: the dataset."""
    return NamedSharding(mesh, P())


def processes(mesh: Mesh) -> Int[np.ndarray, "ticket data"]:
    """The process that every device belongs to."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)
