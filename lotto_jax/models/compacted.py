"""Running networks on compacted params: layers as wide as their kernels instead of as their modules say."""

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

    A module of fixed widths then runs the params that `pruning.compact` returns, in training and inference. Norms take
    their width from their input anyway, and the networks of this package unflatten to as many channels as there are;
    a module that writes a width elsewhere, in a reshape say, cannot follow. It acts while a function is traced. Params
    of the module's own widths run as they always do.

    >>> small = pruning.compact(apply, variables, mask, images)
    >>> with widths_of_params():
    ...     module.apply(small.variables, images, train=False)
    """

    def follow(
        call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if isinstance(layer, FOLLOWING) and layer.has_variable("params", "kernel"):
            features: int = layer.get_variable("params", "kernel").shape[-1]
            # Modules are frozen for their users; this one was bound for this call only.
            object.__setattr__(layer, "features", features)
        return call(*args, **kwargs)

    with nn.intercept_methods(follow):
        yield


def following(function: Callable[P, T]) -> Callable[P, T]:
    """`function` with the layers that it calls as wide as their params, see `widths_of_params`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with widths_of_params():
            return function(*args, **kwargs)

    return wrapped
