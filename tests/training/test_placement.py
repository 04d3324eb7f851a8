"""Tickets on devices: all of them at work, and whole tickets compute what they compute on a single device."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.data import sources
from lotto_jax.experiments import EXPERIMENTS, build
from lotto_jax.experiments.run import feed_of
from lotto_jax.experiments.runner import Run
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.results import read as read_results
from lotto_jax.training import mesh
from lotto_jax.training.placement import Placement
from lotto_jax.training.preemption import Preemption
from tests import tiny


@pytest.mark.parametrize(
    ("tickets", "devices", "batch", "shape"),
    [
        (30, 8, 64, (8, 1)),  # four each, two of them copies
        (10, 8, 64, (5, 1)),  # two each: eight devices would not be sooner done
        (5, 8, 64, (5, 1)),
        (3, 8, 64, (4, 2)),  # a copy of the last ticket fills the mesh
        (2, 7, 64, (2, 1)),
        (2, 6, 31, (2, 1)),
        (3, 8, 63, (3, 1)),
        (1, 8, 64, (1, 8)),
        (7, 4, 64, (4, 1)),
        (8, 1, 64, (1, 1)),
    ],
)
def test_tickets_come_before_parts_of_batches(tickets, devices, batch, shape):
    made = mesh.make(tickets, batch, devices)
    assert tuple(made.shape.values()) == shape
    placed = Placement(made, "sharded")
    turns = -(-tickets // shape[0])
    assert placed.idle(tickets, devices) == pytest.approx(1 - tickets * shape[1] / (turns * devices))
    assert turns == -(-tickets // min(tickets, devices))  # as few as with all devices


def test_a_stack_is_filled_with_copies_and_emptied_again():
    placed = Placement(mesh.make(5, 31, 4), "sharded")
    stack = {"w": jnp.arange(15.0).reshape(5, 3), "key": jax.vmap(jax.random.key)(jnp.arange(5))}
    filled = placed.fill(stack)
    assert filled["w"].shape == (6, 3) and filled["w"].sharding.is_equivalent_to(mesh.by_ticket(placed.mesh), 2)
    np.testing.assert_array_equal(filled["w"][5], stack["w"][4])
    tiny.assert_same(placed.empty(filled, 5), stack)


def outcome(path, devices):
    """Results and masks of a search on so many devices: 5 dense tickets, then 10."""
    config = tiny.config(
        seeds=(0, 1, 2, 3, 4), train__batch_size=31, dataset__train_examples=124, parallel__tickets="sharded"
    )
    dataset = sources.load(**config.dataset)
    objective = build.objective(config, dataset.image_shape)
    with contextlib.ExitStack() as closing:
        feed = closing.enter_context(contextlib.closing(feed_of(config, dataset)))
        directory = closing.enter_context(contextlib.closing(RunDirectory(path, config)))
        made = Run(
            config, EXPERIMENTS["imp"], objective, feed, directory, Preemption(), devices=jax.devices()[:devices]
        )
        closing.enter_context(contextlib.closing(made)).run()
    masks = {file.parent.name: file.read_bytes() for file in path.glob("tickets/*/mask.safetensors")}
    return read_results(path), masks


def test_a_search_on_four_devices_is_the_search_on_one_bit_for_bit(tmp_path):
    (one, masks), (four, others) = (outcome(tmp_path / str(devices), devices) for devices in (1, 4))
    assert masks == others and len(masks) == 10
    assert one == four and len(one) == 5 + 2 * 10
