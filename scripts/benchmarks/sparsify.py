"""What masks that change every 100 steps cost a training loop: whole train steps, and the optimizer by itself.

Rows are a dense step; the step with a mask that never changes, which is the least that masks cost; and the mean step
with `sparsify`: 99 steps between two changes and one that changes the mask. The change is timed by itself, since 100
steps of it and of the dense loop would drift apart. Of the steps between changes the processor time of all threads is
given too, which other programs disturb less.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning
from lotto_jax.models.classifier import ResNet18
from lotto_jax.pruning.masks import Params
from scripts.benchmarks.common import Row

EVERY, STEPS, REPEATS, BATCH, CLASSES = 100, 5, 9, 128, 10
NEVER = 10**8
TARGET = 0.02  # of the dense step


class Problem(NamedTuple):
    """Params, and a function that gives gradients from them and whatever else changes with the steps."""

    params: Params
    grads: Callable[[Params, Any], tuple[Params, Any]]
    rest: Any


def _mlp() -> Problem:
    sizes = (784, 1024, 1024, CLASSES)
    keys = jax.random.split(jax.random.key(0), 3)
    layers = zip(keys, sizes[:-1], sizes[1:], strict=True)
    params = {f"layer{i}": {"kernel": 0.03 * jax.random.normal(k, (m, n))} for i, (k, m, n) in enumerate(layers)}
    image = jax.random.normal(jax.random.key(1), (BATCH, 784))
    label = jnp.arange(BATCH) % CLASSES

    def loss(params: Params) -> jax.Array:
        x = image
        for i in range(2):
            x = jax.nn.relu(x @ params[f"layer{i}"]["kernel"])
        return optax.softmax_cross_entropy_with_integer_labels(x @ params["layer2"]["kernel"], label).mean()

    return Problem(params, lambda params, rest: (jax.grad(loss)(params), rest), ())


def _resnet() -> Problem:
    model = ResNet18(width=16)
    image = jax.random.uniform(jax.random.key(1), (BATCH // 4, 32, 32, 3))
    label = jnp.arange(BATCH // 4) % CLASSES
    variables = jax.jit(lambda key: model.init(key, image, train=False))(jax.random.key(0))

    def loss(params: Params, statistics: Any) -> tuple[jax.Array, Any]:
        logits, changed = model.apply(
            {"params": params, "batch_stats": statistics}, image, train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), changed["batch_stats"]

    return Problem(variables["params"], jax.grad(loss, has_aux=True), variables["batch_stats"])


def _optimizer() -> Problem:
    params = {f"layer{i}": {"kernel": jax.random.normal(jax.random.key(i), (1024, 1024))} for i in range(2)}
    grads = jax.tree.map(lambda p: p[::-1] + 0, params)
    return Problem(params, lambda params, rest: (rest, rest), grads)


def _stepping(problem: Problem, tx: optax.GradientTransformation) -> Callable[[], object]:
    """A call that makes STEPS steps with donated buffers."""

    def step(params: Params, opt_state: Any, rest: Any) -> tuple[Params, Any, Any]:
        grads, rest = problem.grads(params, rest)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, rest

    params = jax.tree.map(jnp.copy, problem.params)
    current = [(params, tx.init(params), jax.tree.map(jnp.copy, problem.rest))]
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*current[0]).compile()

    def call() -> object:
        for _ in range(STEPS):
            current[0] = compiled(*current[0])
        return jax.block_until_ready(current[0])

    call()  # so that rules which start sparse are past step 0, where they change nothing
    return call


def _timed(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds a step of each call, timed in turn: by the wall clock, and of the processor."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (
            1e3 / STEPS * statistics.median(w for w, _ in values),
            1e3 / STEPS * statistics.median(p for _, p in values),
        )
        for name, values in found.items()
    }


def _sparse(name: str, every: int) -> optax.GradientTransformation:
    if name == "magnitude":
        schedule = sparse.polynomial(0.9, 0 if every < NEVER else NEVER, 10 * NEVER, every, power=1)
        return sparse.sparsify(optax.adam(1e-3), sparse.magnitude(), schedule)
    return sparse.sparsify(optax.adam(1e-3), sparse.rigl(), sparse.constant(0.9, every, 10 * NEVER))


def run() -> Iterator[Row]:
    """For every problem the dense step; for every rule the mean step, the step between changes and the change."""
    problems = {
        f"MLP 784-1024-1024-10, batch {BATCH}": _mlp(),
        f"ResNet-18 of width 16, batch {BATCH // 4}": _resnet(),
        "Adam alone, 2.1 M weights": _optimizer(),
    }
    for name, problem in problems.items():
        mask = jax.tree.map(lambda m: m.at[::2].set(False) if m.ndim else m, pruning.ones(problem.params))
        calls = {
            "dense": _stepping(problem, optax.adam(1e-3)),
            "masked": _stepping(problem, sparse.masked_updates(optax.adam(1e-3), mask)),
        }
        for rule in ("magnitude", "RigL"):
            calls[rule] = _stepping(problem, _sparse(rule, NEVER))
        times = _timed(calls, REPEATS)
        dense, dense_processor = times["dense"]
        yield Row(f"{name}: dense step", dense, "ms")
        masked, _ = times["masked"]
        yield Row("  a mask that never changes", masked, "ms", "more than dense", masked / dense - 1)
        for rule in ("magnitude", "RigL"):
            between, processor = times[rule]
            change, _ = _timed({"": _stepping(problem, _sparse(rule, 1))}, 3)[""]
            yield Row(f"  {rule}, between changes", between, "ms", "more than dense", between / dense - 1)
            more = processor / dense_processor - 1
            yield Row(f"  {rule}, between changes, processor time", processor, "ms", "more than dense", more)
            yield Row(f"  {rule}, a step that changes the mask", change, "ms")
            mean = between + (change - between) / EVERY
            target = None if name.startswith("Adam alone") else TARGET
            label = f"  {rule}, a change every {EVERY} steps"
            yield Row(label, mean, "ms", "more than dense", mean / dense - 1, target, "lower")
