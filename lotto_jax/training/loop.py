"""The training loop: one program trains a stack of tickets for any number of steps, without touching the host.

Batches and noise are functions of (key, step), so a run can stop and go on anywhere, in pieces of any length, with the
same result bit for bit.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lotto_jax.models import platforms
from lotto_jax.objectives.state import Batch, Images, Metrics, Objective, TrainState
from lotto_jax.pruning import masks
from lotto_jax.training import packing, shuffle, streams
from lotto_jax.training.packing import Examples
from lotto_jax.training.streams import Stream

Parallel = Literal["vmap", "sequential", "sharded"]
EVERYWHERE = P()


@functools.partial(jax.jit, static_argnames="objective")
def init(objective: Objective, seeds: Int[Array, "tickets"], salt: Int[Array, ""]) -> TrainState:
    """Fresh states stacked on the ticket axis, one a seed.

    Tickets of one seed share the order of batches and the noise whatever `salt` is; the salt only changes the initial
    params. So a random ticket differs from its winning ticket in nothing but the initialization.
    """
    keys = jax.vmap(jax.random.key)(seeds)
    states = jax.vmap(lambda key: objective.init(streams.key(key, Stream.INITIALIZATION, salt)))(keys)
    return states._replace(key=keys)


def over_tickets(
    function: Callable[..., Any], tickets: Parallel, mesh: Mesh, shared: PyTree = EVERYWHERE
) -> Callable[..., Any]:
    """A function of one ticket, `(shared, *ticket)`, as a function of stacked tickets, `(shared, *stacked)`.

    Args:
      function: takes and returns pytrees of arrays; what all tickets share comes first.
      tickets: "sequential" computes one after the other, each on the whole mesh. Else every slice of the mesh's ticket
        axis has its share of them, which it computes in the same operations ("vmap") or one after the other
        ("sharded"). Convolutions of different kernels in one operation are slower than one after the other on some
        backends.
      mesh: axes `ticket` and `data`, of the devices that the program is compiled for.
      shared: partition specs of what tickets share, as far as each slice of the ticket axis has its own.
    """

    def of_one(*arguments: PyTree) -> PyTree:
        with platforms.compiling_for(mesh.devices.flat[0].platform):
            return function(*arguments)

    def together(shared: PyTree, stacked: tuple[PyTree, ...]) -> PyTree:
        return jax.vmap(functools.partial(of_one, shared))(*stacked)

    def one_by_one(shared: PyTree, stacked: tuple[PyTree, ...]) -> PyTree:
        return lax.map(lambda one: of_one(shared, *one), stacked)

    of_slice = together if tickets == "vmap" else one_by_one
    if tickets != "sequential":
        # By hand: the compiler would have the devices ask each other whether all loops of all tickets are through.
        of_slice = jax.shard_map(
            of_slice,
            mesh=mesh,
            in_specs=(shared, P("ticket")),
            out_specs=P("ticket"),
            axis_names={"ticket"},
            check_vma=False,
        )
    return lambda shared, *stacked: of_slice(shared, stacked)


def finite(states: TrainState) -> Bool[Array, "tickets"]:
    """Whether every float of a ticket's params, model state and optimizer state is finite."""
    leaves = [x for x in jax.tree.leaves(states) if jnp.issubdtype(x.dtype, jnp.floating)]
    return functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim))) for x in leaves])


class Streamed(NamedTuple):
    """The batches of some steps, which `train` takes in place of all examples where these do not fit on the device.

    Attributes:
      examples: with the axes [steps, places, batch]. On the axis of places lie orders of the examples, and every slice
        of the ticket axis holds its own (see `shards`).
      first: the step that the first of them belong to, int32 scalar.
      place: where the order of each ticket lies (tickets of a seed follow the same one).
    """

    examples: Examples
    first: Int[Array, ""]
    place: Int[Array, "tickets"]


def _example_numbers(key: Key[Array, ""], step: Int[Array, ""], n: int, batch_size: int) -> Int[Array, "batch"]:
    """Which of `n` examples make up the batch of a step."""
    epoch_steps = n // batch_size
    order_key = streams.key(key, Stream.ORDER, step // epoch_steps)
    position = step % epoch_steps * batch_size + lax.iota(jnp.int32, batch_size)
    return shuffle.shuffled(order_key, position, n)


@functools.partial(jax.jit, static_argnames=("steps", "n", "batch_size"))
def example_numbers(
    keys: Key[Array, "orders"], first: Int[Array, ""], *, steps: int, n: int, batch_size: int
) -> Int[Array, "steps orders batch"]:
    """The examples that `train` on all `n` of them puts in the batches of the steps from `first` on."""
    of_order = jax.vmap(lambda key, step: _example_numbers(key, step, n, batch_size), in_axes=(0, None))
    return jax.vmap(of_order, in_axes=(None, 0))(keys, first + lax.iota(jnp.int32, steps))


@functools.partial(
    jax.jit, static_argnames=("objective", "batch_size", "length", "mesh", "tickets"), donate_argnames="states"
)
def train(
    objective: Objective,
    states: TrainState,
    mask: masks.Mask,
    data: Examples | Streamed,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    *,
    batch_size: int,
    length: int,
    mesh: Mesh,
    tickets: Parallel = "vmap",
) -> tuple[TrainState, dict[str, Float[Array, "length tickets"]], Bool[Array, "tickets"]]:
    """Train stacked tickets from step `start` to `stop`.

    The bounds are traced: ten steps to the rewind point and a whole epoch are the same compiled program.

    Args:
      objective: what a step is.
      states: leaves [tickets, ...], donated; pruned params are set to 0 first, whatever they are.
      mask: leaves [tickets, ...].
      data: all n training examples; or, with the same result bit for bit, the batches of the steps from `start` to
        `stop` at least.
      start: int32 scalar, the first step.
      stop: int32 scalar, the step to stop before; `stop - start <= length`.
      batch_size: examples a step and ticket; an epoch is `n // batch_size` steps, shuffled anew for every ticket.
      length: most steps a call can make.
      mesh: axes `ticket` and `data`.
      tickets: how the tickets share the program, see `over_tickets`.

    Returns:
      The states after step `stop`, the metrics of every step (rows from `stop - start` on are zero), and whether each
      ticket's state is finite.
    """
    if isinstance(data, Streamed):
        (examples, first, place), split = data, P(None, "ticket")  # the data axis is the compiler's
    else:
        examples, first, place, split = data, start, jnp.zeros_like(states.step), EVERYWHERE
    # Inside a manual ticket axis the mesh is the surrounding one.
    over_data = NamedSharding(mesh, P("data")) if tickets == "sequential" else P("data")

    def one_ticket(
        shared: tuple, state: TrainState, ticket_mask: masks.Mask, place: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        examples, first, start, stop = shared

        def one_step(state: TrainState, step: Array) -> tuple[TrainState, Metrics]:
            index: Any
            if isinstance(data, Streamed):
                # A slice of the ticket axis sees no other places.
                index = step - first, place % examples.label.shape[1]
            else:
                index = _example_numbers(state.key, step, examples.label.shape[0], batch_size)
            batch = packing.unpack(jax.tree.map(lambda x: x[index], examples))
            batch = lax.with_sharding_constraint(batch, over_data)
            key = streams.key(state.key, Stream.NOISE, step)
            return objective.step(state, ticket_mask, batch, key)

        def body(step: Array, carry: tuple) -> tuple:
            current, metrics = one_step(carry[0], step)
            return current, {name: carry[1][name].at[step - start].set(value) for name, value in metrics.items()}

        state = state._replace(params=masks.apply(state.params, ticket_mask))
        names = jax.eval_shape(one_step, state, start)[1]
        log = {name: jnp.zeros((length, *value.shape), value.dtype) for name, value in names.items()}
        return lax.fori_loop(start, stop, body, (state, log))

    shared, specs = (examples, first, start, stop), (split, EVERYWHERE, EVERYWHERE, EVERYWHERE)
    states, log = over_tickets(one_ticket, tickets, mesh, specs)(shared, states, mask, place)
    return states, jax.tree.map(lambda x: x.T, log), finite(states)


def _batches(data: Examples, batch_size: int) -> tuple[Examples, Examples | None]:
    """Full batches stacked on a leading axis, and the shorter rest."""
    n = data.label.shape[0]
    full = n // batch_size * batch_size
    stacked = jax.tree.map(lambda x: x[:full].reshape(-1, batch_size, *x.shape[1:]), data)
    return stacked, jax.tree.map(lambda x: x[full:], data) if full < n else None


@functools.partial(jax.jit, static_argnames=("objective", "batch_size", "mesh", "tickets"))
def evaluate(
    objective: Objective,
    params: PyTree,
    model_state: PyTree,
    keys: Key[Array, "tickets"],
    data: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    tickets: Parallel = "vmap",
) -> dict[str, Float[Array, "tickets"]]:
    """Metrics of stacked tickets over all examples of `data`, each example counted once."""
    n = data.label.shape[0]

    def one_ticket(data: Examples, params: PyTree, model_state: PyTree, key: Array) -> Metrics:
        full, rest = _batches(data, min(batch_size, n))
        count = full.label.shape[0]

        def on_batch(batch: Examples, i: Array) -> Metrics:
            own = streams.key(key, Stream.EVALUATION, i)
            metrics = objective.evaluate(params, model_state, packing.unpack(batch), own)
            return jax.tree.map(lambda x: x * batch.label.shape[0], metrics)

        sums = lax.map(lambda item: on_batch(*item), (full, jnp.arange(count)))
        total = jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)
        if rest is not None:
            total = jax.tree.map(jnp.add, total, on_batch(rest, jnp.int32(count)))
        return jax.tree.map(lambda x: x / n, total)

    return over_tickets(one_ticket, tickets, mesh)(data, params, model_state, keys)


@functools.partial(jax.jit, static_argnames=("function", "mesh", "tickets"))
def images(
    function: Images,
    params: PyTree,
    model_state: PyTree,
    keys: Key[Array, "tickets"],
    batch: Batch,
    *,
    mesh: Mesh,
    tickets: Parallel = "vmap",
) -> Float[Array, "tickets batch height width channels"]:
    """Images in [0, 1] by stacked tickets; `function` is an objective's `reconstruct` or `sample`."""

    def one_ticket(batch: Batch, params: PyTree, model_state: PyTree, key: Array) -> Array:
        return function(params, model_state, batch, key)

    return over_tickets(one_ticket, tickets, mesh)(batch, params, model_state, keys)
