"""Floating-point operations of a JAX function, counted on its jaxpr: a multiply-add is two.

Counted from shapes alone, so a masked network costs what the dense one costs, and a compacted one what its
shapes say.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core
from jaxtyping import PyTree

from lotto_jax.pruning.propagation import CALLS, ELEMENTWISE

# Elementwise primitives that move or retype data instead of computing.
FREE = {"convert_element_type", "copy", "copy_p", "reduce_precision", "stop_gradient", "real", "imag"}


class Flops(NamedTuple):
    """Floating-point operations of one call; `str()` is a table of the layers.

    Attributes:
      total: all of them.
      matmul: FLOPs of convolutions and matrix products.
      by_primitive: `{primitive: operations}`.
      by_layer: `{scope: (forward, backward)}`, scopes as `jax.named_scope` and Flax modules set them; "" is
        outside of all.
      loops: scopes of `while` loops, whose bodies are counted once because their trips are unknown.
    """

    total: int
    matmul: int
    by_primitive: dict[str, int]
    by_layer: dict[str, tuple[int, int]]
    loops: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{'forward':>14}  {'backward':>14}  layer"]
        lines += [f"{a:14,d}  {b:14,d}  {name or '(none)'}" for name, (a, b) in self.by_layer.items()]
        return "\n".join([*lines, f"{self.total:14,d}  in all, {self.matmul:,d} in matrix products"])


def count(fn: Callable[..., PyTree], *inputs: PyTree, padding: bool = False) -> Flops:
    """Operations of `fn(*inputs)`, read off its jaxpr; nothing is run or compiled.

    Convolutions and matrix products count 2 for each multiply-add; elementwise operations 1 for each entry of
    the result (transcendental ones too); reductions 1 for each entry reduced. Data movement, random bits and
    sorting count 0. `scan` counts its body once a trip, `cond` its dearest branch. What no output needs is
    left out, as the compiler does.

    Args:
      fn: a function, jitted or not; a train step gives forward, backward and update together.
      *inputs: arrays or `jax.ShapeDtypeStruct`.
      padding: whether multiply-adds with zero padding count. False is what XLA's cost analysis counts; True
        is the convention of most published figures. The holes of a strided transposed convolution never
        count.

    >>> dense = count(lambda x, kernel: jnp.tanh(x @ kernel), jnp.ones((4, 8)), jnp.ones((8, 16)))
    >>> dense.matmul, dense.total
    (1024, 1088)
    """
    closed = jax.make_jaxpr(fn)(*inputs)
    counter = _Counter(padding)
    counter.walk(closed.jaxpr, 1, "", [True] * len(closed.out_avals))
    primitives: Counter[str] = Counter()
    layers: dict[str, tuple[int, int]] = {}
    for (primitive, scope), flops in reversed(counter.flops.items()):  # the walk goes backwards
        primitives[primitive] += flops
        forward, backward = layers.get(_layer(scope), (0, 0))
        is_backward = "transpose(" in scope
        layers[_layer(scope)] = (forward + flops * (not is_backward), backward + flops * is_backward)
    matmul = primitives["dot_general"] + primitives["conv_general_dilated"]
    return Flops(sum(primitives.values()), matmul, dict(primitives.most_common()), layers, tuple(counter.loops))


def _layer(scope: str) -> str:
    """`Generator/Conv_0` for `transpose(jvp(Generator))/Conv_0`: the scope without transformations."""
    while (bare := re.sub(r"\w+\(([^()]*)\)", r"\1", scope)) != scope:
        scope = bare
    return "/".join(part for part in scope.split("/") if part)


class _Counter:
    """Operations by (primitive, scope)."""

    def __init__(self, padding: bool) -> None:
        self.padding = padding
        self.flops: Counter[tuple[str, str]] = Counter()
        self.loops: list[str] = []

    def walk(self, jaxpr: core.Jaxpr, times: int, outer: str, needed: list[bool] | None = None) -> None:
        """Add the equations that the `needed` outputs (all by default) depend on, `times` over."""
        needed = needed or [True] * len(jaxpr.outvars)
        live = {id(v) for v, need in zip(jaxpr.outvars, needed, strict=True) if need}
        for eqn in reversed(jaxpr.eqns):
            outputs = [id(v) in live for v in eqn.outvars]
            if not any(outputs):
                continue
            live |= {id(v) for v in eqn.invars}
            scope = "/".join(filter(None, (outer, str(eqn.source_info.name_stack))))
            name, params = eqn.primitive.name, eqn.params
            if name == "cond":
                self._dearest(params["branches"], times, scope)
            elif name == "scan":
                self.walk(params["jaxpr"].jaxpr, times * params["length"], scope)
            elif name == "while":
                self.loops.append(scope)
                self.walk(params["body_jaxpr"].jaxpr, times, scope)
            elif name in CALLS:
                inner = next(params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params)
                self.walk(getattr(inner, "jaxpr", inner), times, scope, outputs)
            elif flops := times * self._operations(eqn):
                self.flops[name, scope] += flops

    def _dearest(self, branches: tuple[core.ClosedJaxpr, ...], times: int, scope: str) -> None:
        counters = []
        for branch in branches:
            counters.append(_Counter(self.padding))
            counters[-1].walk(branch.jaxpr, times, scope)
        dearest = max(counters, key=lambda c: sum(c.flops.values()))
        self.flops.update(dearest.flops)
        self.loops += dearest.loops

    def _operations(self, eqn: core.JaxprEqn) -> int:
        name = eqn.primitive.name
        ins, out = [_shape(v) for v in eqn.invars], _shape(eqn.outvars[0])
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            return 2 * math.prod(out) * math.prod(ins[0][a] for a in contracted)
        if name == "conv_general_dilated":
            return self._convolution(eqn.params, ins[0], ins[1], out)
        if name in ELEMENTWISE and name not in FREE:
            return math.prod(out)
        if name.startswith("reduce_window"):
            return math.prod(out) * math.prod(eqn.params["window_dimensions"])
        if name.startswith(("reduce_", "cum", "arg")) and name != "reduce_precision":
            return math.prod(ins[0])
        return 0

    def _convolution(self, p: dict[str, Any], lhs: tuple[int, ...], rhs: tuple[int, ...], out: tuple[int, ...]) -> int:
        numbers = p["dimension_numbers"]
        pairs = 1
        for i, (a, b, c) in enumerate(
            zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
        ):
            # Which entry of the (dilated) input meets tap k at output o; the holes between its entries are
            # skipped.
            o, k = np.arange(out[c])[:, None], np.arange(rhs[b])[None, :]
            at = o * p["window_strides"][i] + k * p["rhs_dilation"][i] - p["padding"][i][0]
            met = at % p["lhs_dilation"][i] == 0
            if not self.padding:
                met &= (at >= 0) & (at <= (lhs[a] - 1) * p["lhs_dilation"][i])
            pairs *= int(met.sum())
        batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
        return 2 * batch * features * rhs[numbers.rhs_spec[1]] * pairs


def _shape(atom: core.Var | core.Literal) -> tuple[int, ...]:
    return tuple(atom.aval.shape)  # type: ignore[attr-defined]
