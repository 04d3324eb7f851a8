"""Shards of streamed batches: together they are the batches, in order, however tickets and devices are divided."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.training import shards
from lotto_jax.training.mesh import processes

STEPS = 2


@st.composite
def divisions(draw):
    """Orders of tickets, a batch size, and devices of a mesh that belong to processes one after the other."""
    slices, parts, tickets = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    processes = draw(st.sampled_from([p for p in (1, 2, 4, 8, 16) if slices * parts % p == 0]))
    size = slices * tickets
    seeds = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    _, order = np.unique(seeds, return_inverse=True)
    devices = np.repeat(np.arange(processes), slices * parts // processes).reshape(slices, parts)
    return order, parts * draw(st.integers(1, 3)), devices


@settings(max_examples=50, deadline=None)
@given(divisions())
def test_the_devices_of_all_processes_hold_the_batches_of_every_ticket(division):
    order, batch_size, processes = division
    (slices, parts), orders = processes.shape, order.max() + 1
    numbers = np.arange(STEPS * orders * batch_size).reshape(STEPS, orders, batch_size)  # all different
    divided = shards.divide(order, batch_size, processes)
    chunk = np.full((STEPS, divided.places, batch_size), -1)
    held = np.zeros(processes.max() + 1, int)
    for (row, column), process in np.ndenumerate(processes):
        known = numbers[:, divided.of_process(process)]
        extents = (row, divided.width), (column, batch_size // parts)
        index = slice(None), *(slice(i * n, (i + 1) * n) for i, n in extents)
        chunk[index] = known[:, *divided.of_device(index, process)]
        held[process] += chunk[index][0].size
    assert divided.host_examples == held.max()
    place = divided.place(order)
    np.testing.assert_array_equal(chunk[:, place], numbers[:, order])
    own_slice = np.repeat(np.arange(slices), len(order) // slices)
    np.testing.assert_array_equal(place // divided.width, own_slice)


@pytest.mark.parametrize(
    ("order", "processes", "orders", "examples"),
    [
        ([0, 1, 2], [[0]], slice(0, 3), 3 * 64),  # one device: everything
        ([0, 1, 2, 3], [[0], [0], [1], [1]], slice(2, 4), 2 * 64),  # its own tickets' orders
        ([0, 0], [[0, 0, 1, 1]], slice(0, 1), 32),  # its own half of the batch
        ([0, 1], [[0, 1], [2, 3]], slice(0, 1), 32),  # half of the orders, half of the batch
    ],
)
def test_a_process_gathers_no_more_than_its_devices_need(order, processes, orders, examples):
    divided = shards.divide(np.array(order), 64, np.array(processes))
    assert divided.of_process(min(1, np.max(processes))) == orders
    assert divided.host_examples == examples


def test_devices_hold_the_examples_of_their_tickets():
    """On a real mesh of two slices and two parts, against NumPy's own indexing."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("ticket", "data"))
    order = np.array([0, 1, 2, 1])
    rng = np.random.default_rng(0)
    array, numbers = rng.integers(0, 256, (50, 3), np.uint8), rng.integers(0, 50, (5, 3, 4))
    divided = shards.divide(order, 4, processes(mesh))
    chunk = shards.gather(array, numbers, divided, mesh)
    assert {shard.data.shape for shard in chunk.addressable_shards} == {(5, 2, 2, 3)}
    np.testing.assert_array_equal(np.asarray(chunk)[:, divided.place(order)], array[numbers[:, order]])
