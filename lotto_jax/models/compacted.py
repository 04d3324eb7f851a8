"""Running networks on compacted params: layers as wide as their kernels instead of as their modules say.

`pruning.compact` returns smaller params, but a Flax module has its widths written in, and refuses params of other
shapes. Within `widths_of_params` the module runs on them:

>>> mask = pruning.channel_mask(pruning.batch_norm_scales(variables["params"]), 0.5)
>>> small = pruning.compact(model.apply, variables, mask, images)
>>> with widths_of_params():
...     outputs = model.apply(small.variables, images)
>>> outputs.shape == model.apply(variables, images).shape
True
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn

from lotto_jax.models import layers

FOLLOWING = (nn.Dense, nn.Conv, nn.ConvTranspose, layers.Conv, layers.ConvTranspose)
P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def widths_of_params() -> Iterator[None]:
    """Within it, dense and (transposed) convolutional layers called by the current thread follow their kernels.

    A module of fixed widths then runs the params that `pruning.compact` returns, in training and inference. A depthwise
    convolution gets as many groups as it has input channels left; a grouped convolution keeps its groups, which became
    narrower. Norms take their width from their input anyway, and the networks of this package unflatten to as many
    channels as there are; a module that writes a width elsewhere, in a reshape say, cannot follow. It acts while a
    function is traced. Params of the module's own widths run as they always do.

    Raises:
      ValueError: when a grouped convolution is called whose kernel does not fit its input, naming the layer.

    >>> mask = pruning.channel_mask(pruning.batch_norm_scales(variables["params"]), 0.5)
    >>> small = pruning.compact(model.apply, variables, mask, images)
    >>> with widths_of_params():
    ...     outputs = jax.jit(model.apply)(small.variables, images)
    """

    def follow(
        call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if (
            isinstance(layer, FOLLOWING)
            and context.method_name == "__call__"
            and layer.has_variable("params", "kernel")
        ):
            shape: tuple[int, ...] = layer.get_variable("params", "kernel").shape
            changes = {"features": shape[-1]}
            if isinstance(layer, nn.Conv) and layer.feature_group_count > 1:
                inputs = args[0] if args else kwargs["inputs"]
                changes["feature_group_count"] = _groups(layer, inputs.shape[-1], shape[-2], shape[-1])
            for name, value in changes.items():
                # Modules are frozen for their users; this one was bound for this call only.
                object.__setattr__(layer, name, value)
        return call(*args, **kwargs)

    with nn.intercept_methods(follow):
        yield


def _groups(layer: nn.Conv, channels: int, taken: int, features: int) -> int:
    """How many groups a convolution over `channels` has whose kernel takes `taken` a group and makes `features`."""
    groups = layer.feature_group_count
    if channels == taken * groups and features % groups == 0:
        return groups  # each group lost as many channels as the others
    multiplier = layer.features // groups
    if taken == 1 and features == multiplier * channels:
        return channels  # depthwise: a group for each channel
    raise ValueError(
        f"The kernel of {'/'.join(layer.path)!r} takes {taken} channels a group and makes {features}, which does not "
        f"fit its {groups} groups and an input of {channels} channels; run it on variables that pruning.compact "
        "returned for this module."
    )


def following(function: Callable[P, T]) -> Callable[P, T]:
    """`function` with the layers that it calls as wide as their params, see `widths_of_params`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with widths_of_params():
            return function(*args, **kwargs)

    return wrapped
