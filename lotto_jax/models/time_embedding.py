"""The time of a diffusion or a flow as features that a network reads (Vaswani et al. 2017; Ho et al. 2020)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SCALE = 1000.0  # times in [0, 1] are scaled to the steps of Ho et al.


def sinusoidal(time: Float[Array, "batch"], features: int) -> Float[Array, "batch features"]:
    """Sines, then cosines, of 1000 times the time, at wavelengths from 2 pi to 20,000 pi; `features` is even."""
    half = features // 2
    frequencies = jnp.asarray(np.exp(-np.log(10_000.0) * np.arange(half) / max(half - 1, 1)), jnp.float32)
    angle = SCALE * time[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
