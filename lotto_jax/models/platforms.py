"""The platform that a program is compiled for: layers with a form of their own for CPUs ask for it while traced.

The training loop says which, by the devices of its mesh. `jax.lax.platform_dependent` would leave the choice to the
compiler, but it traces both forms, which starts every run later, and puts branches into the jaxprs that
`pruning.axis_groups` walks.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_platform: contextvars.ContextVar[str] = contextvars.ContextVar("platform", default="")


def current() -> str:
    """The platform of the innermost `compiling_for`, JAX's default backend outside of it: "cpu", "gpu", "tpu"."""
    return _platform.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Within it, what this thread traces is for `platform`, as `jax.Device.platform` has it.

    A function that was already jitted keeps its form, so one that enters this context needs the devices among its
    static arguments.
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)
