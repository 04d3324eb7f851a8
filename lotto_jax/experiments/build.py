"""From the open sections of a configuration (model, objective, optimizer) to an objective."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from lotto_jax import names
from lotto_jax.models import autoencoder, classifier, dcgan, dit, float8, mlp, resnet_gan, sngan, unet, vae
from lotto_jax.objectives import adversarial, classification, diffusion, elbo, flow_matching, reconstruction
from lotto_jax.objectives.state import Objective
from lotto_jax.training import detection


class Network(NamedTuple):
    """What a model's name stands for: its parts, each with its own optimizer, and the objective that trains them.

    `others` are objectives that can train them, too, where `config.objective.name` says so.
    """

    objective: str
    parts: tuple[Callable[..., nn.Module], ...]
    others: tuple[str, ...] = ()


NETWORKS: dict[str, Network] = {
    "linear_autoencoder": Network("reconstruction", (autoencoder.LinearAutoencoder,)),
    "conv_autoencoder": Network("reconstruction", (autoencoder.ConvAutoencoder,)),
    "vae": Network("elbo", (vae.conv_vae,)),
    "resnet_vae": Network("elbo", (vae.resnet_vae,)),
    "dcgan": Network("adversarial", (dcgan.Generator, dcgan.Discriminator)),
    "sngan": Network("adversarial", (dcgan.Generator, sngan.Discriminator)),
    "resnet_dcgan": Network("adversarial", (resnet_gan.Generator, resnet_gan.Discriminator)),
    "dit": Network("diffusion", (dit.DiT,), ("flow_matching",)),
    "unet": Network("diffusion", (unet.UNet,), ("flow_matching",)),
    "mlp": Network("diffusion", (mlp.MLP,), ("flow_matching",)),
    "resnet18": Network("classification", (classifier.ResNet18,)),
}
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "adversarial": adversarial.make,
    "classification": classification.make,
    "diffusion": diffusion.make,
    "elbo": elbo.make,
    "flow_matching": flow_matching.make,
    "reconstruction": reconstruction.make,
}
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    # As PyTorch has it. The root of v + 1e-8, optax's default, is never below 1e-4, which a WGAN's gradients are.
    "rmsprop": functools.partial(optax.rmsprop, decay=0.99, eps_in_sqrt=False),
    "sgd": optax.sgd,
}
# Arguments that the data or this module give, not the configuration.
GIVEN = {"parent", "name", "image_size", "channels", "classes", "dtype", "model", "generator", "discriminator"}
GIVEN |= {"optimizer", "generator_optimizer", "discriminator_optimizer", "image_shape"}


def network_of(config: ConfigDict) -> Network | Callable[..., Objective]:
    """What `config.model.name` names: a network with its objective, or a function that makes an objective.

    A network of one's own is a Flax module whose params have the components as their top-level keys. Called as
    `(image, train)` it is an autoencoder, as `(image, key, train)` a VAE (`models.vae.VAE` says what else it needs), as
    `(x, time, train)` the network of a diffusion; `config.objective.name` says so where it is a classifier or the
    network of a flow. Or it is a `Network`, as GANs are, which have two modules.

    Raises:
      ValueError: if there is none of this name, or it is neither.
    """
    found = names.choose(config.model.name, NETWORKS, "config.model.name")
    if isinstance(found, type) and issubclass(found, nn.Module):
        taken = _parameters(found.__call__)
        inferred = "elbo" if "key" in taken else "diffusion" if "time" in taken else "reconstruction"
        return Network(config.objective.get("name", inferred), (found,))
    if isinstance(found, Network) or inspect.isfunction(found):
        return found
    raise ValueError(
        f"config.model.name is {config.model.name!r}, which is a {type(found).__name__}; it takes a Flax module, a "
        "lotto_jax.experiments.build.Network, or a function that returns a lotto_jax.objectives.state.Objective."
    )


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _check_type(field: str, value: Any, parameter: inspect.Parameter) -> None:
    """Raise ValueError unless `value` is of the kind that an argument takes: as its default is, or its annotation says.

    Other kinds than numbers, strings and booleans are left to the function itself.
    """
    default, number = parameter.default, isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {parameter.annotation}
    if isinstance(default, bool | str | int | float):
        kinds = {type(default)}
    elif typing.get_origin(parameter.annotation) in (typing.Union, types.UnionType):
        kinds = set(typing.get_args(parameter.annotation))
    if value is None and (default is None or types.NoneType in kinds):
        return
    kind = next((kind.__name__ for kind in (bool, str, int, float) if kind in kinds), "")
    least = min(default, 1) if type(default) is int else 1
    if kind in ("bool", "str"):
        fits, wanted = type(value).__name__ == kind, f"a {kind}"
    elif kind == "int":
        fits = isinstance(value, int) and number and value >= least
        wanted = "a positive integer" if least else "an integer of at least 0"
    else:
        fits, wanted = number or kind != "float", "a number"
    if not fits:
        raise ValueError(f"{field} is {value!r}; it takes {wanted}.")


def _fields(
    section: str, config: ConfigDict, *functions: Callable[..., Any], elsewhere: Collection[str] = ()
) -> dict[str, Any]:
    """The fields that a section sets, each checked to be an argument of one of `functions`.

    Arguments without a default have to be there, or `elsewhere`.
    """
    fields = {key: value for key, value in config.items() if key != "name"}
    accepted = {key: p for f in functions for key, p in _parameters(f).items() if key not in GIVEN}
    for key, value in fields.items():
        if key not in accepted:
            raise ValueError(
                f"config.{section}.{key} is not a field of {config.get('name', 'the objective')!r}; "
                f"it takes {', '.join(sorted(accepted)) or 'none'}."
            )
        _check_type(f"config.{section}.{key}", value, accepted[key])
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and key not in {*fields, *elsewhere}:
            raise ValueError(f"config.{section}.{key} is missing; {config.get('name', 'the objective')!r} needs it.")
    return fields


def _own(
    config: ConfigDict,
    function: Callable[..., Objective],
    precision: str,
    image_shape: tuple[int, int, int],
    classes: int | None,
    optimizer: optax.GradientTransformation,
) -> Objective:
    """What a function of the user's own makes of the sections model and objective, and of the data."""
    given = {"image_shape": image_shape, "classes": classes, "optimizer": optimizer}
    if precision != "float32" and ("dtype" not in _parameters(function) or precision == "float8"):
        raise ValueError(
            f"config.precision is {precision!r}, but {config.model.name} has no parameter dtype for it; add one, or "
            "set config.precision to float32."
        )
    if "dtype" in _parameters(function):
        given["dtype"] = jnp.dtype(precision)
    own = {key: value for key, value in given.items() if key in _parameters(function)}
    own |= _fields("model", config.model, function, elsewhere=config.objective)
    made = function(**own, **_fields("objective", config.objective, function, elsewhere=config.model))
    if not isinstance(made, Objective):
        raise ValueError(
            f"config.model.name is {config.model.name!r}, which returns a {type(made).__name__}; it has to return a "
            "lotto_jax.objectives.state.Objective."
        )
    return made


def objective(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    classes: int | None = None,
    steps: int | None = None,
    precision: str = "",
    slimming: float = 0.0,
) -> Objective:
    """The objective that `config` describes.

    Args:
      config: the configuration.
      image_shape: (height, width, channels) of the dataset's images.
      classes: of the dataset's labels, or its number of attributes; only classifiers need it.
      steps: of training, at whose end the schedule of the learning rate ends; None where nothing is trained.
      precision: of the computation, in place of `config.precision`.
      slimming: coefficient of the L1 term on every scale, see `detection.slimmed`.

    Raises:
      ValueError: naming the field that is unknown or takes no such value.
    """
    network = network_of(config)
    make_optimizer = names.choose(config.optimizer.name, OPTIMIZERS, "config.optimizer.name")
    settings = _fields("optimizer", config.optimizer, make_optimizer)
    if not settings["learning_rate"] > 0:
        raise ValueError(f"config.optimizer.learning_rate is {settings['learning_rate']}; it must be above 0.")

    def optimizer(updates: int) -> optax.GradientTransformation:
        """One that makes so many updates in a step."""
        rate = settings["learning_rate"]
        if config.train.schedule == "cosine" and steps is not None:
            rate = optax.cosine_decay_schedule(rate, steps * updates)
        made = make_optimizer(**settings | {"learning_rate": rate})
        return detection.slimmed(made, slimming) if slimming else made

    if not isinstance(network, Network):
        made = _own(config, network, precision or config.precision, image_shape, classes, optimizer(1))
        return multiplied(made, config.matmul_precision)
    name = config.objective.get("name", network.objective)
    if name not in (network.objective, *network.others):
        others = f" (or {', '.join(map(repr, network.others))})" if network.others else ""
        raise ValueError(
            f"config.objective.name is {name!r}, but {config.model.name} is trained by {network.objective!r}{others}; "
            "leave config.objective.name out."
        )
    make = names.choose(name, OBJECTIVES, "config.objective.name")
    fields = _fields("model", config.model, *network.parts)
    goals = _fields("objective", config.objective, make)
    normalized = "batch_norm" in _parameters(network.parts[-1]) and fields.get("batch_norm", True)
    if normalized and goals.get("gradient_penalty_weight"):
        raise ValueError(
            "config.objective.gradient_penalty_weight needs each image judged by itself; set "
            "config.model.batch_norm to False."
        )
    precision = precision or config.precision
    dtype = jnp.dtype("bfloat16" if precision == "float8" else precision)
    fields |= {"image_size": image_shape[0], "channels": image_shape[2], "dtype": dtype}
    if classes is not None:
        fields["classes"] = classes
    elif network.objective == "classification":
        raise ValueError(f"config.model.name is {config.model.name!r}, which needs the dataset's number of classes.")
    for part in network.parts if precision != "float32" else ():
        if "dtype" not in _parameters(part):
            raise ValueError(
                f"config.precision is {precision!r}, but {config.model.name} has no field dtype to compute in; add "
                "one, or set config.precision to float32."
            )
    parts = [part(**{k: v for k, v in fields.items() if k in _parameters(part)}) for part in network.parts]
    # The second part of a GAN is its discriminator.
    optimizers = [optimizer(config.objective.get("critic_steps", 1) if i else 1) for i in range(len(parts))]
    made = make(*parts, *optimizers, image_shape, **goals)
    made = made.wrapped(float8.emulated) if precision == "float8" else made
    return multiplied(made, config.matmul_precision)


def multiplied(made: Objective, precision: str) -> Objective:
    """The objective with training's float32 products in a precision, and the products that measure in the highest.

    So the numbers of different backends compare, as far as their trainings do.

    Args:
      made: the objective.
      precision: "default", "high" or "highest", see `jax.default_matmul_precision`.
    """

    def within(chosen: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any) -> Any:
            with jax.default_matmul_precision(chosen):
                return function(*args)

        return wrapped

    training = functools.partial(within, precision)
    return made.wrapped(functools.partial(within, "highest"))._replace(
        step=training(made.step), losses=tuple(loss._replace(value=training(loss.value)) for loss in made.losses)
    )
