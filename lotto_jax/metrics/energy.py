"""Energy distance of two samples, over the examples' numbers themselves: no network looks at them."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist


def energy_distance(a: Float[np.ndarray, "n *shape"], b: Float[np.ndarray, "m *shape"]) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, in float64, without bias (Szekely and Rizzo 2013); 0 for equal distributions.

    Pairs of one sample with itself do not count, so it can be slightly below 0. It takes O((n + m)^2) time and memory.

    Raises:
      ValueError: if a sample has fewer than two examples.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"An energy distance needs two examples or more of each; it got {len(a)} and {len(b)}.")
    x, y = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (a, b))
    within = [cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(2 * cdist(x, y).mean() - sum(within))
