"""Units of a network that answer to no input: what its rectified linear units give, found in the function itself.

The jaxpr of the function is run equation by equation. An elementwise maximum with a constant 0 is a rectified linear
unit, whoever wrote it (`jax.nn.relu`, `flax.linen.relu`, `jnp.maximum(x, 0)`). Units inside of loops and conditionals
are not seen. A leaky unit always answers; it is no maximum with 0.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float, PyTree

CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters of an equation that calls another function
LOOPS = ("cond", "scan", "while")


def highest(function: Callable[..., PyTree], *arguments: PyTree) -> dict[str, Float[Array, "units"]]:
    """The largest output of every rectified linear unit over a batch, and over all positions of a map.

    A unit whose largest output over all data is 0 is dead there.

    Args:
      function: of the arguments; what it returns does not matter. It is traced, and may be so within `jax.jit`.
      *arguments: pytrees of arrays; units lie on the last axis of an activation, whose first axis is the batch.

    Returns:
      By layer, in the order of the computation: the named scopes around the activation (Flax modules are such), then
      `relu`, numbered where there are several.
    """
    closed = jax.make_jaxpr(lambda *xs: function(*xs))(*arguments)
    found: dict[str, Array] = {}
    _run(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), "", found, Counter())
    return found


def _run(
    jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], scope: str, found: dict, seen: Counter
) -> list[Any]:
    """The outputs of a jaxpr; what is looked for is added to `found`."""
    env: dict[core.Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else env[atom]  # noqa: E731
    for eqn in jaxpr.eqns:
        inputs, here = [read(atom) for atom in eqn.invars], f"{scope}/{eqn.source_info.name_stack}".strip("/")
        inner = next((eqn.params[name] for name in CALLED if name in eqn.params), None)
        if inner is not None and eqn.primitive.name not in LOOPS:
            body = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            outputs = _run(body.jaxpr, body.consts, inputs, here, found, seen)
        else:
            made = eqn.primitive.bind(*inputs, **eqn.params)
            outputs = made if eqn.primitive.multiple_results else [made]
        if eqn.primitive.name == "max" and outputs[0].ndim > 1 and any(map(_is_zero, eqn.invars)):
            name = f"{here}/relu".strip("/")
            number, seen[name] = seen[name], seen[name] + 1
            output = outputs[0]
            found[f"{name}_{number}" if number else name] = jnp.max(output, axis=tuple(range(output.ndim - 1)))
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_zero(atom: core.Var | core.Literal) -> bool:
    return isinstance(atom, core.Literal) and not np.any(atom.val)
