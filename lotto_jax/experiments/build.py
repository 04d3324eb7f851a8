"""From the open sections of a configuration (model, objective, optimizer) to an objective."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax
from ml_collections import ConfigDict

from lotto_jax.models.autoencoder import LinearAutoencoder
from lotto_jax.objectives import reconstruction
from lotto_jax.objectives.state import Objective

MODELS: dict[str, Callable[..., Any]] = {"linear_autoencoder": LinearAutoencoder}
OBJECTIVES: dict[str, Callable[..., Objective]] = {"reconstruction": reconstruction.make}
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def _choose(section: str, choices: Mapping[str, Callable[..., Any]], config: ConfigDict) -> Callable[..., Any]:
    if config.name not in choices:
        raise ValueError(f"config.{section}.name is {config.name!r}; it takes one of {', '.join(sorted(choices))}.")
    return choices[config.name]


def _fields(section: str, function: Callable[..., Any], config: ConfigDict, given: set[str]) -> dict[str, Any]:
    """The keyword arguments that a section sets, each checked to be one that `function` takes."""
    fields = {key: value for key, value in config.items() if key != "name"}
    accepted = set(inspect.signature(function).parameters) - given - {"parent", "name"}
    for key in fields:
        if key not in accepted:
            raise ValueError(
                f"config.{section}.{key} is not a field of {config.name!r}; "
                f"it takes {', '.join(sorted(accepted)) or 'none'}."
            )
    return fields


def objective(config: ConfigDict, image_shape: tuple[int, int, int]) -> Objective:
    """The objective that `config` describes, for images of the given (height, width, channels).

    Raises:
      ValueError: naming the field that is unknown or takes no such value.
    """
    make_optimizer = _choose("optimizer", OPTIMIZERS, config.optimizer)
    optimizer = make_optimizer(**_fields("optimizer", make_optimizer, config.optimizer, set()))
    make_model = _choose("model", MODELS, config.model)
    model = make_model(**_fields("model", make_model, config.model, set()))
    make = _choose("objective", OBJECTIVES, config.objective)
    given = {"model", "optimizer", "image_shape"}
    return make(model, optimizer, image_shape, **_fields("objective", make, config.objective, given))
