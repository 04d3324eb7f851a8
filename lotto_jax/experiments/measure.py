"""Metrics of tickets that need another network: accuracy of reconstructions, distances between samples and data.

A run measures the states it keeps at the end of every phase, `lotto-jax evaluate` the kept states of a run that exists.
Both go through `Measure`, which computes what `metrics.registry` says. Images are made, rounded to 8 bits and looked at
on the device, a batch at a time. All tickets of a seed draw the same noise, the same in every run.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8
from ml_collections import ConfigDict

from lotto_jax import progress
from lotto_jax.data.sources import Dataset, Split
from lotto_jax.experiments import classifier, compacting, costs
from lotto_jax.metrics import extractors, frechet, registry, vit, weights
from lotto_jax.metrics.fid import reference_statistics, warn_bias
from lotto_jax.metrics.images import to_uint8
from lotto_jax.metrics.registry import BY_EXTRACTOR, OF_SAMPLES, Metric
from lotto_jax.objectives.state import Batch, Images, Objective
from lotto_jax.runs import kept, provenance, results
from lotto_jax.training import checkpoints, hosts, streams
from lotto_jax.training.streams import Stream

BATCH = 100  # images made and looked at together; their noise depends on it


class Asked(NamedTuple):
    """A metric, the extractor that it is computed with (None: it needs none), and its columns in results.csv."""

    metric: Metric
    extractor: extractors.Extractor | None
    columns: tuple[str, ...]


def check(config: ConfigDict, objective: Objective) -> list[Metric]:
    """The metrics of `config.metrics.names`.

    Raises:
      ValueError: on the first field of `config.metrics` that makes no sense for the networks of `objective`.
    """
    entries, samples, model = config.metrics.names, config.metrics.samples, config.model.name
    asked = [registry.of(entry) for entry in entries]
    for entry, metric in zip(entries, asked, strict=True):
        if "reconstructions" in metric.needs and objective.reconstruct is None:
            raise ValueError(f"config.metrics.names holds {entry!r}, but {model} reconstructs no images; leave it out.")
        if set(metric.needs) & set(OF_SAMPLES) and objective.sample is None:
            raise ValueError(f"config.metrics.names holds {entry!r}, but {model} draws no samples; leave it out.")
    if len(set(entries)) != len(entries):
        raise ValueError(f"config.metrics.names is {tuple(entries)}; every entry may be there once.")
    for metric in asked:
        if samples < metric.least:
            raise ValueError(
                f"config.metrics.samples is {samples}, but {metric.name} needs {metric.least} images; raise it to that."
            )
    return asked


def count_label(count: int) -> str:
    """A number of samples as it ends a metric's name: 10k, 1500."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)


def prepare(config: ConfigDict, objective: Objective, dataset: Dataset) -> "Measure | None":
    """What measures the metrics of `config.metrics`; None if it names none.

    Raises:
      FileNotFoundError: if Inception features are asked for and their weights are not there.
      StorageError: if the classifier's stored state is damaged.
      ValueError: if a field makes no sense, or the classifier is missing or of other images.
    """
    metrics = check(config, objective)
    if not metrics:
        return None
    for metric in metrics:
        if len(dataset.train.label) < metric.least:
            raise ValueError(
                f"config.metrics.names holds {metric.name!r}, which needs {metric.least} images, but there are only "
                f"{len(dataset.train.label)} training images; leave it out."
            )
        if set(metric.needs) & {*BY_EXTRACTOR, "classify"} and not dataset.pictures:
            raise ValueError(
                f"config.metrics.names holds {metric.name!r}, which looks at images, but {dataset.name} has points; "
                "leave it out."
            )
    chosen = config.metrics.features
    fallen_back = chosen == "auto" and not weights.default_path().is_file()
    if chosen == "auto":
        chosen = "classifier" if fallen_back else "inception"
    extractor_of = [(metric.extractor or chosen) if set(metric.needs) & set(BY_EXTRACTOR) else "" for metric in metrics]
    judge = None
    if "classifier" in extractor_of or any("classify" in metric.needs for metric in metrics):
        judge = _classifier(config, dataset, fallen_back and "classifier" in extractor_of)
    for metric, extractor in zip(metrics, extractor_of, strict=True):
        if "logits" in metric.needs and extractor in vit.NETWORKS:
            raise ValueError(
                f"config.metrics.names holds {metric.name!r}, but config.metrics.features is {extractor!r}, which has "
                "no classes; leave it out, or take inception or classifier."
            )
        if dataset.train.label.ndim > 1 and "logits" in metric.needs and extractor == "classifier":
            raise ValueError(
                f"config.metrics.names holds {metric.name!r}, but the classifier of {dataset.name} tells attributes, "
                "not classes, and there are no Inception weights in use; leave it out."
            )
    found: dict[str, extractors.Extractor | None] = {"classifier": judge.extractor if judge else None, "": None}
    if "inception" in extractor_of:
        found["inception"] = extractors.inception()
    found |= {name: extractors.transformer(name) for name in vit.NETWORKS if name in extractor_of}
    samples = count_label(config.metrics.samples)
    asked: dict[tuple[str, ...], Asked] = {}
    for metric, name in zip(metrics, extractor_of, strict=True):
        for own in (metric, *metric.along):
            extractor = found[name]
            columns = own.column_names(extractor.name if extractor else "", samples)
            if taken := sorted(set(columns) & (dict(objective.better).keys() | costs.BETTER.keys())):
                raise ValueError(
                    f"config.metrics.names holds {own.name!r}, whose column {taken[0]!r} a run has already; give the "
                    "Metric another name."
                )
            asked.setdefault(columns, Asked(own, extractor, columns))
    return Measure(config, compacting.of_any_width(objective), dataset, judge, list(asked.values()))


def _classifier(config: ConfigDict, dataset: Dataset, fallen_back: bool) -> classifier.Classifier:
    """The classifier of `config.metrics`; `fallen_back` if it stands for Inception, whose weights are not there."""
    if not config.metrics.classifier:
        why = f" (there are no Inception weights at {weights.default_path()})" if fallen_back else ""
        raise ValueError(
            f"config.metrics.names is {tuple(config.metrics.names)}, which needs a classifier{why}, but "
            "config.metrics.classifier is empty; set it to the run directory of one (configs/resnet18_*.py), or "
            "give --config.metrics.names='()' and measure later with `lotto-jax evaluate`."
        )
    judge = classifier.load(config.metrics.classifier)
    judge.check(dataset.name, dataset.image_shape)
    return judge


class Measure:
    """Adds metrics to the results of tickets whose final states are kept. `columns` are the names it writes."""

    def __init__(
        self,
        config: ConfigDict,
        objective: Objective,
        dataset: Dataset,
        judge: classifier.Classifier | None,
        asked: list[Asked],
    ):
        """See `prepare`, which also checks the arguments."""
        self.config, self.objective, self.dataset = config, objective, dataset
        self.judge, self.asked = judge, asked
        self.held_out: Split = getattr(dataset, config.evaluation.split)
        self._references: dict[str, frechet.Gaussian] = {}
        self._reals: dict[str, np.ndarray] = {}
        self.entries = {column: self._entry(one) for one in asked for column in one.columns}
        self.columns = tuple(self.entries)

    def _entry(self, asked: Asked) -> dict[str, Any]:
        """What the numbers of a metric depend on apart from the tickets, and which are better."""
        metric, extractor = asked.metric, asked.extractor
        needs = set(metric.needs)
        entry: dict[str, Any] = {"better": metric.better}
        if extractor is not None:
            entry["extractor"] = extractor.identifier
            entry |= {"tolerance": metric.tolerance[extractor.name]} if extractor.name in metric.tolerance else {}
        if "classify" in needs and self.judge is not None:
            entry["extractor"] = self.judge.identifier
        if "classify" in needs or (
            extractor is not None and self.judge is not None and extractor is self.judge.extractor
        ):
            entry["classifier"] = str(self.config.metrics.classifier)
        if needs & {"originals", "reconstructions"}:
            entry |= {"split": self.config.evaluation.split, "images": len(self.held_out.label)}
        if needs & set(OF_SAMPLES):
            entry |= {
                "samples": self.config.metrics.samples,
                "noise": f"stream {Stream.SAMPLES.name.lower()} of each seed, batches of {BATCH}",
            }
        if needs & {"real_features", "real_moments"}:
            count = len(self.dataset.train.label) if "real_moments" in needs else self.real_count
            entry |= {"reference": "training split", "reference_images": count}
        return entry | {"seeds": list(self.config.seeds)} | dict(metric.settings)

    @property
    def real_count(self) -> int:
        """Real images that KID, precision and recall compare with: the first, as many as samples."""
        return min(self.config.metrics.samples, len(self.dataset.train.label))

    def due(self, store: checkpoints.Store, phase: int) -> bool:
        """Whether a kept phase is one of those that are measured, see `protocol.Phase.measured`."""
        measured = store.meta(phase)["measured"]
        return measured == "always" or (measured == "every" and phase % self.config.metrics.every == 0)

    def __call__(
        self,
        path: Path,
        store: checkpoints.Store,
        phases: Iterable[int],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Measure what results.csv lacks of some kept phases; a ticket's rows are written as soon as they are there.

        Of several processes the first measures, and the others wait.

        Args:
          path: of the run directory.
          store: its finished phases.
          phases: their numbers; those that are not due are passed over.
          between: called between tickets, to stop by raising.

        Raises:
          ValueError: if results.csv has such metrics from another extractor or sample count.
          StorageError: if a state is damaged.
        """
        todo = hosts.first(self._todo, path, store, phases)
        restored = functools.lru_cache(1)(functools.partial(kept.restore, store))
        shape = {"total": len(todo), "desc": "measuring", "unit": " tickets", "leave": False, "delay": 1.0}
        with progress.bar(**shape, disable=not hosts.is_first()) as bar:
            for phase, i, columns in todo:
                bar.set_postfix_str(kept.tickets_of(store, phase)[i].name)
                if reason := hosts.first(self._add, path, store, phase, i, columns, restored):
                    raise checkpoints.StorageError(reason)
                bar.update()
                between()

    def _todo(self, path: Path, store: checkpoints.Store, phases: Iterable[int]) -> list[tuple[int, int, list[str]]]:
        """Phase and number of every ticket that something is to be measured of, and the columns."""
        provenance.claim(path, self.entries)
        due = [phase for phase in phases if self.due(store, phase)]
        return [(phase, i, columns) for phase in due for i, columns in self._missing(path, store, phase).items()]

    def _add(
        self,
        path: Path,
        store: checkpoints.Store,
        phase: int,
        i: int,
        columns: list[str],
        restored: Callable[[int], kept.Kept],
    ) -> str:
        """Measure columns of a ticket; why that cannot be, if its state is damaged."""
        try:
            trained, steps = restored(phase), store.meta(phase)["steps"]
        except checkpoints.StorageError as error:
            return str(error)
        values = self.ticket(i, trained, columns)
        results.add(path, [trained.tickets[i].result(self.config, steps, column, values[column]) for column in columns])
        return ""

    def forget(self, path: Path) -> None:
        """Remove what the run has of these metrics."""
        results.drop(path, self.columns)
        provenance.drop(path, self.columns)

    def _missing(self, path: Path, store: checkpoints.Store, phase: int) -> dict[int, list[str]]:
        """By number of the ticket in its phase, the columns that results.csv lacks."""
        meta = store.meta(phase)
        once = {column for one in self.asked if one.metric.once for column in one.columns}
        first = phase == next(number for number in store.steps() if self.due(store, number))
        wanted = {
            ticket.result(self.config, meta["steps"], column, 0.0): i
            for i, ticket in enumerate(kept.tickets_of(store, phase))
            for column in self.columns
            if column not in once or (first and i == 0)
        }
        found: dict[int, list[str]] = {}
        for result in results.missing(path, wanted):
            found.setdefault(wanted[result], []).append(result.metric)
        return found

    def ticket(self, i: int, trained: kept.Kept, columns: list[str]) -> dict[str, float]:
        """Values of at least the given columns of one ticket of a phase."""
        key = jax.random.key(np.uint32(trained.tickets[i].seed))
        make = functools.partial(
            _make, params=trained.params, model_state=trained.model_state, ticket=np.int32(i), key=key
        )
        asked = [one for one in self.asked if set(one.columns) & set(columns)]
        given: dict[str, Given] = {}
        values: dict[str, float] = {}
        for one in asked:
            name = one.extractor.identifier if one.extractor else ""
            if name not in given:
                needs = {need for other in asked if other.extractor is one.extractor for need in other.metric.needs}
                given[name] = Given(self, one.extractor, needs, make)
            found = one.metric.compute(given[name])
            values |= dict(zip(one.columns, found if isinstance(found, tuple) else (found,), strict=True))
        return values

    def reference(self, extractor: extractors.Extractor) -> frechet.Gaussian:
        """Statistics of all training images; kept in the user's cache too, by their content."""
        if extractor.identifier not in self._references:
            found = reference_statistics(self.dataset.train.image, extractor, BATCH)
            warn_bias("samples", self.config.metrics.samples, len(found.mean))
            warn_bias("training images", found.number, len(found.mean))
            self._references[extractor.identifier] = found
        return self._references[extractor.identifier]

    def real(self, extractor: extractors.Extractor) -> Float[np.ndarray, "images features"]:
        """Features of the first training images, as many as samples."""
        if extractor.identifier not in self._reals:
            images = self.dataset.train.image[: self.real_count]
            self._reals[extractor.identifier] = extractors.features(images, extractor, None, BATCH)[extractor.layer]
        return self._reals[extractor.identifier]


class Given:
    """What the metrics of one ticket and one extractor are computed from (`registry.Given`), each when it is read."""

    def __init__(
        self,
        measure: Measure,
        extractor: extractors.Extractor | None,
        needs: Collection[str],
        make: Callable[..., Array],
    ):
        """`needs` are the needs of all its metrics, so that the extractor looks at the samples once."""
        self._measure, self._extractor, self._needs, self._make = measure, extractor, needs, make
        self.originals, self.labels = measure.held_out

    def classify(self, images: Any) -> Float[np.ndarray, "n classes"]:
        """Logits of the classifier."""
        assert self._measure.judge is not None
        return extractors.features(images, self._measure.judge.extractor, ("logits",), BATCH)["logits"]

    @functools.cached_property
    def reconstructions(self) -> UInt8[np.ndarray, "held_out height width channels"]:
        """The held-out split as the ticket reconstructs it."""
        return np.concatenate([np.asarray(part) for part in self._reconstructed()])

    def _reconstructed(self) -> Iterator[UInt8[Array, "batch height width channels"]]:
        held_out = self._measure.held_out
        count = len(held_out.label)
        for number, start in enumerate(range(0, count, BATCH)):
            image, label = (x[start : start + BATCH] for x in held_out)
            size = len(label)
            fill = [(0, BATCH - size)]  # so that the last batch needs no program of its own
            padded = (np.pad(x, fill + [(0, 0)] * (x.ndim - 1)) for x in (image, label))
            batch = Batch(*map(jnp.asarray, padded))
            yield self._make(self._measure.objective.reconstruct, batch=batch, number=np.int32(number))[:size]

    @functools.cached_property
    def samples(self) -> UInt8[np.ndarray, "samples height width channels"]:
        """`config.metrics.samples` images."""
        return np.concatenate([np.asarray(part) for part in self._drawn()])

    def _drawn(self) -> Iterator[UInt8[Array, "batch height width channels"]]:
        count, shape = self._measure.config.metrics.samples, self._measure.dataset.image_shape
        dtype = self._measure.dataset.train.image.dtype
        like = Batch(jnp.zeros((BATCH, *shape), dtype), jnp.zeros(BATCH, jnp.int32))
        for number, start in enumerate(range(0, count, BATCH)):
            yield self._make(self._measure.objective.sample, batch=like, number=np.int32(number))[: count - start]

    @functools.cached_property
    def _looked(self) -> dict[str, Any]:
        """What the extractor says of samples, in one pass: moments, and what features are needed whole."""
        extractor = self._own
        logits = "logits_unbiased" if extractor.name == "inception" else "logits"
        layers = {"features": extractor.layer, "logits": logits}
        collected = {need: layer for need, layer in layers.items() if need in self._needs}
        wanted = [extractor.layer] if "moments" in self._needs else []
        moments, parts = frechet.Stream(), []
        for part in extractors.stream(
            self._drawn(), extractor, tuple(dict.fromkeys([*wanted, *collected.values()])), BATCH
        ):
            if "moments" in self._needs:
                moments.add(part[extractor.layer])
            parts.append({need: part[layer] for need, layer in collected.items()})
        found: dict[str, Any] = {need: np.concatenate([part[need] for part in parts]) for need in collected}
        return found | ({"moments": frechet.gaussian(moments.moments())} if "moments" in self._needs else {})

    @property
    def _own(self) -> extractors.Extractor:
        assert self._extractor is not None
        return self._extractor

    @property
    def features(self) -> Float[np.ndarray, "samples features"]:
        """Features of samples."""
        return self._looked["features"]

    @property
    def logits(self) -> Float[np.ndarray, "samples classes"]:
        """Logits of samples."""
        return self._looked["logits"]

    @property
    def moments(self) -> frechet.Gaussian:
        """Mean and covariance of the features of samples."""
        return self._looked["moments"]

    @property
    def real_features(self) -> Float[np.ndarray, "real features"]:
        """Features of the first training images, as many as samples."""
        return self._measure.real(self._own)

    @property
    def real_moments(self) -> frechet.Gaussian:
        """Mean and covariance of the features of all training images."""
        return self._measure.reference(self._own)


@functools.partial(jax.jit, static_argnums=0)
def _make(
    function: Images,
    params: PyTree,
    model_state: PyTree,
    ticket: Int[Array, ""],
    key: Key[Array, ""],
    batch: Batch,
    number: Int[Array, ""],
) -> UInt8[Array, "batch height width channels"]:
    """One batch of images of one ticket of a stack, as they would be saved; what is not finite becomes a number. Points
    stay as they are.
    """
    own_params, own_state = jax.tree.map(lambda x: x[ticket], (params, model_state))
    images = function(own_params, own_state, batch, streams.key(key, Stream.SAMPLES, number))
    finite = jnp.nan_to_num(images)
    return to_uint8(finite) if batch.image.dtype == jnp.uint8 else finite
