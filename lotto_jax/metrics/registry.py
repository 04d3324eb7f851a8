"""The metrics of tickets that `config.metrics.names` can ask for; the objective has its own.

A new one is a `Metric`, and a row in `METRICS` or, outside of this package, `"my_package.my_metrics:PSNR"` as its name:

    PSNR = Metric("psnr", ("originals", "reconstructions"), compute=psnr, better="higher")
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8

from lotto_jax import names
from lotto_jax.metrics import frechet
from lotto_jax.metrics.cmmd import SCALE, SIGMA, cmmd
from lotto_jax.metrics.energy import energy_distance
from lotto_jax.metrics.inception_score import inception_score
from lotto_jax.metrics.kid import kernel_distance
from lotto_jax.metrics.precision_recall import precision_recall
from lotto_jax.objectives.classification import hits
from lotto_jax.objectives.state import Better

Need = Literal[
    "originals",
    "reconstructions",
    "classify",
    "samples",
    "features",
    "moments",
    "logits",
    "real_features",
    "real_moments",
]
BY_EXTRACTOR = ("features", "moments", "logits", "real_features", "real_moments")
OF_SAMPLES = ("samples", *BY_EXTRACTOR)
# What metrics.json says of metrics that draw or divide; the keys are the arguments of their functions.
INCEPTION_SCORE = {"splits": 10, "seed": 2020}
KID = {"subsets": 100, "subset_size": 1000, "seed": 2020}
PRECISION_RECALL = {"k": 3}
CMMD = {"sigma": SIGMA, "scale": SCALE}
ENERGY = {"points": 2000}


class Given(Protocol):
    """What a metric is computed from: attributes named as the needs are, computed when they are read."""

    labels: Int[np.ndarray, "held_out *attributes"]

    @property
    def originals(self) -> UInt8[np.ndarray, "held_out height width channels"]:
        """The held-out split."""

    @property
    def reconstructions(self) -> UInt8[np.ndarray, "held_out height width channels"]:
        """The held-out split as the ticket reconstructs it."""

    @property
    def samples(self) -> UInt8[np.ndarray, "samples height width channels"]:
        """Samples of the ticket."""

    @property
    def features(self) -> Float[np.ndarray, "samples features"]:
        """Features of samples, by the extractor in use."""

    @property
    def moments(self) -> frechet.Gaussian:
        """Mean and covariance of the features of samples."""

    @property
    def logits(self) -> Float[np.ndarray, "samples classes"]:
        """Logits of samples, by the extractor in use."""

    @property
    def real_features(self) -> Float[np.ndarray, "real features"]:
        """Features of the first training images, as many as samples."""

    @property
    def real_moments(self) -> frechet.Gaussian:
        """Mean and covariance of the features of all training images."""

    def classify(self, images: UInt8[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "n classes"]:
        """Logits of the classifier."""


class Metric(NamedTuple):
    """One metric, or several that are computed together.

    Attributes:
      name: in `config.metrics.names`.
      needs: what `compute` reads of what it is given; decides which networks it can be asked of.
      compute: from what is given to a value, or a value for every column.
      better: whether lower or higher values are better, or neither.
      settings: entered into metrics.json.
      columns: what results.csv calls it, by extractor, the others under ""; `{extractor}` and `{samples}` are filled
        in. Empty: its name.
      tolerance: by extractor, how much worse than the dense mean a winning ticket may be by default.
      extractor: `inception`, `dinov2`, `clip` or `classifier`, where it is defined for one only.
      once: whether it is the same for all tickets, and so measured once a run.
      along: metrics that are measured with it.
      least: images that it needs at least, of samples and of training images.
    """

    name: str
    needs: Sequence[Need]
    compute: Callable[[Given], Any]
    better: Better
    settings: Mapping[str, Any] = {}
    columns: Mapping[str, tuple[str, ...]] = {}
    tolerance: Mapping[str, float] = {}
    extractor: str = ""
    once: bool = False
    along: "tuple[Metric, ...]" = ()
    least: int = 0

    def column_names(self, extractor: str, samples: str) -> tuple[str, ...]:
        """What results.csv calls it."""
        templates = self.columns.get(extractor, self.columns.get("", (self.name,)))
        return tuple(template.format(extractor=extractor, samples=samples) for template in templates)


_FRECHET = Metric(
    "frechet",
    ("moments", "real_moments"),
    lambda given: frechet.frechet_distance(given.moments, given.real_moments),
    "lower",
    columns={"inception": ("fid_{samples}",), "": ("fd_{extractor}_{samples}",)},
    tolerance={"inception": 10.0},
)
_ACCURACY_ON_ORIGINALS = Metric(
    "accuracy_on_originals",
    ("originals", "classify"),
    lambda given: float(np.mean(hits(given.classify(given.originals), given.labels))),
    "higher",
    once=True,
)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            ("originals", "reconstructions", "classify"),
            lambda given: float(np.mean(hits(given.classify(given.reconstructions), given.labels))),
            "higher",
            along=(_ACCURACY_ON_ORIGINALS,),
        ),
        _FRECHET,
        _FRECHET._replace(name="fid", extractor="inception"),
        _FRECHET._replace(name="fd_resnet18", extractor="classifier"),
        _FRECHET._replace(name="fd_dinov2", extractor="dinov2", tolerance={}),
        Metric(
            "cmmd",
            ("features", "real_features"),
            lambda given: cmmd(given.features, given.real_features),
            "lower",
            CMMD,
            {"": ("cmmd_{samples}",)},
            extractor="clip",
        ),
        Metric(
            "inception_score",
            ("logits",),
            lambda given: inception_score(given.logits, **INCEPTION_SCORE).mean,
            "higher",
            INCEPTION_SCORE,
            {"inception": ("inception_score_{samples}",), "": ("is_{extractor}_{samples}",)},
        ),
        Metric(
            "kid",
            ("features", "real_features"),
            lambda given: kernel_distance(given.features, given.real_features, **KID).mean,
            "lower",
            KID,
            {"inception": ("kid_{samples}",), "": ("kd_{extractor}_{samples}",)},
            least=KID["subset_size"],
        ),
        Metric(
            "energy_distance",
            ("samples", "originals"),
            lambda given: energy_distance(*(x[: ENERGY["points"]] for x in (given.samples, given.originals))),
            "lower",
            ENERGY,
            {"": ("energy_distance_{samples}",)},
        ),
        Metric(
            "precision_recall",
            ("features", "real_features"),
            lambda given: tuple(precision_recall(given.features, given.real_features, **PRECISION_RECALL)),
            "higher",
            PRECISION_RECALL,
            {
                "inception": ("precision_{samples}", "recall_{samples}"),
                "": ("precision_{extractor}_{samples}", "recall_{extractor}_{samples}"),
            },
        ),
    )
}


def of(name: str) -> Metric:
    """The metric that an entry of `config.metrics.names` stands for.

    Raises:
      ValueError: if there is none, or it does not say which values are better.
    """
    if not names.is_reference(name):
        if name not in METRICS:
            raise ValueError(
                f"config.metrics.names holds {name!r}; it takes {', '.join(METRICS)}, or "
                '"package.module:attribute" of your own code.'
            )
        return METRICS[name]
    metric = names.resolve(name, "config.metrics.names")
    if not isinstance(metric, Metric):
        raise ValueError(f"config.metrics.names holds {name!r}, which is no lotto_jax.metrics.Metric; make it one.")
    if metric.better not in ("lower", "higher", "neither"):
        raise ValueError(
            f"config.metrics.names holds {name!r}, whose better is {metric.better!r}; it takes 'lower', 'higher' or "
            "'neither'."
        )
    return metric
