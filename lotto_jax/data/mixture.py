"""Points of a Gaussian mixture in the plane, whose best denoiser is known in closed form.

Eight normal distributions of standard deviation 0.1 lie on the unit circle, all equally likely. The points are float32
"images" of 1x1 with two channels; they are not rounded to bytes and not scaled. Labels are the distributions.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, softmax

COUNT, RADIUS, SPREAD = 8, 1.0, 0.1
SIZES = {"train": 8192, "test": 2048}


def centers() -> Float[np.ndarray, "components 2"]:
    """The means."""
    angle = 2 * np.pi * np.arange(COUNT) / COUNT
    return RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def points(rng: np.random.Generator, count: int) -> tuple[Float[np.ndarray, "count 2"], Int[np.ndarray, "count"]]:
    """Points, and which distribution each comes from."""
    label = rng.integers(0, COUNT, count)
    return centers()[label] + SPREAD * rng.normal(size=(count, 2)), label


def _terms(
    x: Float[np.ndarray, "n 2"], signal: float, noise: float
) -> tuple[Float[np.ndarray, "n components 2"], Float[np.ndarray, "n components"], float]:
    """Offsets from the means of `signal * data + noise * normal`, log densities by component, and the variance."""
    offset, variance = x[:, None] - signal * centers(), (signal * SPREAD) ** 2 + noise**2
    log = -0.5 * np.sum(offset**2, axis=-1) / variance - np.log(2 * np.pi * variance) - np.log(COUNT)
    return offset, log, variance


def log_density(x: Float[np.ndarray, "n 2"], signal: float = 1.0, noise: float = 0.0) -> Float[np.ndarray, "n"]:
    """Log density in nats of `signal * data + noise * normal` at x."""
    return logsumexp(_terms(x, signal, noise)[1], axis=1)


def expected_data(x: Float[np.ndarray, "n 2"], signal: float, noise: float) -> Float[np.ndarray, "n 2"]:
    """E[data | signal * data + noise * normal = x], float64: what the best network knows of the data.

    The best prediction of anything linear in data and normal numbers follows: these are (x - signal * data) / noise.
    """
    offset, log, variance = _terms(x, signal, noise)
    mean = centers() + signal * SPREAD**2 / variance * offset
    return np.sum(softmax(log, axis=1)[..., None] * mean, axis=1)


def load(name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    """The points (see `sources.Source`)."""
    if image_size:
        raise ValueError("config.dataset.image_size is set, but the mixture has points, not images; set it to 0.")
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {"label_names": np.arange(COUNT)}
    for split, count in SIZES.items():
        x, label = points(rng, count)
        arrays[f"{split}_image"] = x.astype(np.float32)[:, None, None]
        arrays[f"{split}_label"] = label.astype(np.int32)
    return "1.0.0", arrays


def outline(name: str, data_dir: str, image_size: int, examples: int) -> dict[str, np.ndarray]:
    """The points; they are few."""
    return load(name, data_dir, image_size)[1]


def image_shape(name: str, data_dir: str, image_size: int) -> tuple[int, int, int]:
    """(height, width, channels)."""
    return (1, 1, 2)


def classes(name: str, data_dir: str, image_size: int) -> int:
    """Eight."""
    return COUNT
