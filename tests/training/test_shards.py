"""Shards of streamed batches: together they are the batches, in order, however tickets and devices are divided."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.training import shards

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
def test_every_ticket_finds_its_whole_batches_in_what_the_processes_have_gathered(division):
    order, batch_size, processes = division
    (slices, parts), orders = processes.shape, order.max() + 1
    numbers = np.arange(STEPS * orders * batch_size).reshape(STEPS, orders, batch_size)  # all different
    divided = shards.divide(order, batch_size, processes)
    gathered = [numbers[:, *divided.of_process(process)] for process in range(processes.max() + 1)]
    assert divided.host_examples == max(x[0].size for x in gathered) <= orders * batch_size
    chunk = np.full((STEPS, divided.places, batch_size), -1)
    for (row, column), process in np.ndenumerate(processes):
        index = (
            slice(None),
            *(slice(i * n, (i + 1) * n) for i, n in ((row, divided.width), (column, batch_size // parts))),
        )
        chunk[index] = gathered[process][:, *divided.of_device(index, process)]
    place = divided.place(order)
    np.testing.assert_array_equal(chunk[:, place], numbers[:, order])
    own_slice = np.repeat(np.arange(slices), len(order) // slices)
    np.testing.assert_array_equal(place // divided.width, own_slice)


@pytest.mark.parametrize(
    ("order", "processes", "needed", "examples"),
    [
        ([0, 1, 2], [[0]], (slice(0, 3), slice(0, 64)), 3 * 64),  # one device: everything
        ([0, 1, 2, 3, 0, 1, 2, 3], [[0], [0], [0], [0]], (slice(0, 4), slice(0, 64)), 4 * 64),  # each order once
        ([0, 1, 2, 3], [[0], [0], [1], [1]], (slice(2, 4), slice(0, 64)), 2 * 64),  # its own tickets' orders
        ([0, 0], [[0, 0, 1, 1]], (slice(0, 1), slice(32, 64)), 32),  # its own half of the batch
        ([0, 1], [[0, 1], [2, 3]], (slice(0, 1), slice(32, 64)), 32),  # a quarter of both
    ],
)
def test_a_process_gathers_no_more_than_its_devices_need(order, processes, needed, examples):
    divided = shards.divide(np.array(order), 64, np.array(processes))
    assert divided.of_process(min(1, np.max(processes))) == needed
    assert divided.host_examples == examples
