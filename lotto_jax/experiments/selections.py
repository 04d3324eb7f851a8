"""What experiments that prune weights in rounds have in common: which rule prunes, how far, and what makes no sense."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator

import jax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from lotto_jax import names, pruning
from lotto_jax.objectives.state import Objective
from lotto_jax.pruning import patterns
from lotto_jax.pruning.patterns import Pattern

# (params, mask, fraction) -> mask of one ticket; jitted and vmapped, with a traced fraction.
Rule = Callable[[pruning.Params, pruning.Mask, Float[Array, ""]], pruning.Mask]


def global_magnitude(params: pruning.Params, mask: pruning.Mask, fraction: Float[Array, ""]) -> pruning.Mask:
    """The smallest weights go, of all layers together (the paper's rule)."""
    return pruning.global_prune(pruning.magnitude(params), mask, fraction)


def layerwise_magnitude(params: pruning.Params, mask: pruning.Mask, fraction: Float[Array, ""]) -> pruning.Mask:
    """The smallest weights of every layer go."""
    return pruning.layerwise_prune(pruning.magnitude(params), mask, fraction)


def lamp(params: pruning.Params, mask: pruning.Mask, fraction: Float[Array, ""]) -> pruning.Mask:
    """The smallest weights go, of all layers together, each measured by what is left of its layer (Lee et al. 2021)."""
    return pruning.scoped_prune(pruning.magnitude(params), mask, fraction, "lamp")


def _in_pattern(pattern: Pattern) -> Rule:
    """The blocks with the smallest mean |weight| go, of all layers together; fractions count blocks."""

    def rule(params: pruning.Params, mask: pruning.Mask, fraction: Float[Array, ""]) -> pruning.Mask:
        return pruning.scoped_prune(pruning.magnitude(params), mask, fraction, "global", pattern)

    return rule


RULES: dict[str, Rule] = {
    "global_magnitude": global_magnitude,
    "layerwise_magnitude": layerwise_magnitude,
    "lamp": lamp,
    "blocks_4x4": _in_pattern(patterns.blocks(4, 4)),
    "output_channels": _in_pattern(patterns.channels(-1)),
    "two_of_four": _in_pattern(patterns.nm(2, 4)),
}

# The share of the weights that a rule always keeps, where that is not 0.
KEEPS: dict[str, float] = {"two_of_four": 0.5}


def rule_of(config: ConfigDict) -> Rule:
    """The rule that `config.imp.rule` names.

    Raises:
      ValueError: if there is none.
    """
    rule = names.choose(config.imp.rule, RULES, "config.imp.rule")
    if not callable(rule):
        raise ValueError(
            f"config.imp.rule is {config.imp.rule!r}, which is a {type(rule).__name__}; it takes a function "
            "(params, mask, fraction) -> mask."
        )
    return rule


@functools.partial(jax.jit, static_argnums=0)
def prune(rule: Rule, params: pruning.Params, mask: pruning.Mask, fraction: Float[Array, ""]) -> pruning.Mask:
    """The masks of stacked tickets after another round."""
    return jax.vmap(lambda p, m: rule(p, m, fraction))(params, mask)


@jax.jit
def prune_to(params: pruning.Params, mask: pruning.Mask, sparsity: Float[Array, ""]) -> pruning.Mask:
    """The masks of stacked tickets, pruned at once to a sparsity by global magnitude."""
    return jax.vmap(lambda p, m: pruning.prune_to_sparsity(pruning.magnitude(p), m, sparsity))(params, mask)


def salt(config: ConfigDict, number: int, choice: int) -> int:
    """Of the random numbers of a round and a choice of pruned components; the dense networks have 0."""
    return 1 + (number - 1) * len(config.imp.pruned) + choice


def _left_by_round(weights: int, fraction: float) -> Iterator[int]:
    """Weights left after 0, 1, 2, ... rounds."""
    while True:
        yield weights
        weights -= round(fraction * weights)


def sparsity_after(weights: int, config: ConfigDict, number: int) -> float:
    """The sparsity that winning tickets have after so many rounds."""
    left = _left_by_round(weights, config.imp.fraction)
    return 1 - next(count for i, count in enumerate(left) if i == number) / weights


def check_arms(config: ConfigDict, arms: Collection[str]) -> None:
    """Raise ValueError unless `config.imp.arms` holds some of `arms`, each once."""
    for field in ("pruned", "arms"):
        entries = config.imp[field]
        if len(set(entries)) != len(entries):
            raise ValueError(f"config.imp.{field} is {tuple(entries)}; every entry may be there once.")
    for arm in config.imp.arms:
        if arm not in arms:
            raise ValueError(f"config.imp.arms names {arm!r}; it takes {', '.join(arms)}.")
    if not config.imp.arms:
        raise ValueError(f"config.imp.arms is empty; it takes {', '.join(arms)}.")


def check_pruned(config: ConfigDict, objective: Objective) -> dict[str, int]:
    """The prunable weights of every choice of `config.imp.pruned`.

    Raises:
      ValueError: if there is none, or it names a component that the networks lack.
    """
    if not config.imp.pruned:
        raise ValueError("config.imp.pruned is empty; it takes 'both' and component names.")
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    weights = {}
    for pruned in config.imp.pruned:
        if pruned not in ("both", *objective.components):
            raise ValueError(
                f"config.imp.pruned names {pruned!r}, but {config.model.name} has {', '.join(objective.components)}; "
                "it takes 'both' and component names."
            )
        predicate = pruning.is_kernel if pruned == "both" else pruning.in_components(pruned)
        weights[pruned] = pruning.num_prunable(jax.eval_shape(lambda p, f=predicate: pruning.ones(p, f), params))
    return weights


def check_rounds(config: ConfigDict, objective: Objective) -> None:
    """Raise ValueError if `config.imp.fraction` or `pruned` is out of range, or there are more rounds than weights."""
    imp = config.imp
    always = KEEPS.get(imp.rule, 0.0)
    if not 0 < imp.fraction < 1:
        raise ValueError(f"config.imp.fraction is {imp.fraction}; it must lie between 0 and 1.")
    for pruned, weights in check_pruned(config, objective).items():
        for number, left in zip(range(1, imp.rounds + 1), _left_by_round(weights, imp.fraction), strict=False):
            if always * weights >= left:
                raise ValueError(
                    f"config.imp.rounds is {imp.rounds}, but config.imp.rule = {imp.rule!r} always keeps {always:.0%}, "
                    f"which is what round {number} would find (pruned: {pruned}); lower it to {number - 1}."
                )
            if round(imp.fraction * left) in (0, left):
                raise ValueError(
                    f"config.imp.rounds is {imp.rounds}, but round {number} would find only {left} of {weights} "
                    f"weights left to prune by {imp.fraction:.0%} (pruned: {pruned}); lower it to {number - 1}."
                )


def rewind_steps(config: ConfigDict) -> list[int]:
    """The steps of the dense networks whose states are kept: the rewind step, and those for other searches."""
    return sorted({config.imp.rewind_step, *config.imp.rewind_steps})


def check_rewind(config: ConfigDict, steps: int) -> None:
    """Raise ValueError unless the rewind steps lie in training."""
    if config.imp.rewind_step >= steps:
        raise ValueError(
            f"config.imp.rewind_step is {config.imp.rewind_step}, but training has only {steps} steps; lower it."
        )
    for step in config.imp.rewind_steps:
        if not (isinstance(step, int) and 0 <= step < steps):
            raise ValueError(
                f"config.imp.rewind_steps holds {step!r}, but training has {steps} steps; it takes integers from 0 to "
                f"{steps - 1}."
            )
