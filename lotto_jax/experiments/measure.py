"""Metrics of tickets that need another network: accuracy of reconstructions, distances between samples and data.

A run measures its kept states at the end of every phase, `lotto-jax evaluate` those of a run that exists; both go
through `Measure`. Images are made, rounded to 8 bits and looked at on the device, a batch at a time; nothing but
features comes to the host. All tickets of a seed draw the same noise, the same in every run.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8
from ml_collections import ConfigDict
from tqdm import tqdm

from lotto_jax.data.sources import Dataset, Split
from lotto_jax.experiments import classifier, compacting, kept
from lotto_jax.experiments.run_directory import RunDirectory, write_atomically
from lotto_jax.experiments.tickets import Ticket, total_steps
from lotto_jax.metrics import extractors, frechet, weights
from lotto_jax.metrics.fid import reference_statistics, warn_bias
from lotto_jax.metrics.images import to_uint8
from lotto_jax.metrics.inception_score import inception_score
from lotto_jax.metrics.kid import kernel_distance
from lotto_jax.metrics.precision_recall import precision_recall
from lotto_jax.objectives.classification import hits
from lotto_jax.objectives.state import Batch, Images, Objective
from lotto_jax.training import checkpoints

BATCH = 100  # images made and looked at together; their noise depends on it
SAMPLES = 4  # stream of that noise, beside those of training.loop and imp
KID_IMAGES = 1000  # in each subset that KID draws
NAMES = ("accuracy", "frechet", "fid", "fd_resnet18", "inception_score", "kid", "precision_recall")
ORIGINALS = "accuracy_on_originals"


class Features(NamedTuple):
    """One extractor, and what its features are for: `frechet`, `inception_score`, `kid`, `precision_recall`."""

    extractor: extractors.Extractor
    kinds: tuple[str, ...]


def check(config: ConfigDict, objective: Objective) -> None:
    """Raise ValueError on the first field of `config.metrics` that makes no sense for the networks of `objective`."""
    names, samples, model = config.metrics.names, config.metrics.samples, config.model.name
    for name in names:
        if name not in NAMES:
            raise ValueError(f"config.metrics.names holds {name!r}; it takes {', '.join(NAMES)}.")
        if name == "accuracy" and objective.reconstruct is None:
            raise ValueError(
                f"config.metrics.names holds 'accuracy', but {model} reconstructs no images; leave it out."
            )
        if name != "accuracy" and objective.sample is None:
            raise ValueError(f"config.metrics.names holds {name!r}, but {model} draws no samples; leave it out.")
    if len(set(names)) != len(names):
        raise ValueError(f"config.metrics.names is {tuple(names)}; every entry may be there once.")
    if "kid" in names and samples < KID_IMAGES:
        raise ValueError(
            f"config.metrics.samples is {samples}, but kid draws subsets of {KID_IMAGES} images; raise it to that."
        )


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
    check(config, objective)
    if not config.metrics.names:
        return None
    if config.experiment == "early_bird":
        objective = compacting.of_any_width(objective)
    names, features = config.metrics.names, config.metrics.features
    if "kid" in names and len(dataset.train.label) < KID_IMAGES:
        raise ValueError(
            f"config.metrics.names holds 'kid', which draws subsets of {KID_IMAGES} images, but there are only "
            f"{len(dataset.train.label)} training images; leave it out."
        )
    fallen_back = features == "auto" and not weights.default_path().is_file()
    if features == "auto":
        features = "classifier" if fallen_back else "inception"
    by = {"fid": "inception", "fd_resnet18": "classifier"}
    kinds: dict[str, list[str]] = {"inception": [], "classifier": []}
    for name in names:
        if name != "accuracy":
            kind = "frechet" if name in ("fid", "fd_resnet18") else name
            chosen = kinds[by.get(name, features)]
            chosen += [kind] if kind not in chosen else []
    judge = None
    if kinds["classifier"] or "accuracy" in names:
        if not config.metrics.classifier:
            why = ""
            if fallen_back and kinds["classifier"]:
                why = f" (there are no Inception weights at {weights.default_path()})"
            raise ValueError(
                f"config.metrics.names is {tuple(names)}, which needs a classifier{why}, but "
                "config.metrics.classifier is empty; set it to the run directory of one (configs/resnet18_*.py), or "
                "give --config.metrics.names='()' and measure later with `lotto-jax evaluate`."
            )
        judge = classifier.load(config.metrics.classifier)
        judge.check(dataset.name, dataset.image_shape)
    if "inception_score" in kinds["classifier"] and dataset.train.label.ndim > 1:
        raise ValueError(
            f"config.metrics.names holds 'inception_score', but the classifier of {dataset.name} tells attributes, not "
            "classes, and there are no Inception weights in use; leave it out."
        )
    found = []
    if kinds["inception"]:
        found.append(Features(extractors.inception(), tuple(kinds["inception"])))
    if kinds["classifier"]:
        assert judge is not None
        found.append(Features(judge.extractor, tuple(kinds["classifier"])))
    return Measure(config, objective, dataset, judge if "accuracy" in names else None, found)


class Measure:
    """Adds metrics to the results of tickets whose final states are kept. `metrics` are the names it writes."""

    def __init__(
        self,
        config: ConfigDict,
        objective: Objective,
        dataset: Dataset,
        judge: classifier.Classifier | None,
        features: list[Features],
    ):
        """See `prepare`, which also checks the arguments."""
        self.config, self.objective, self.dataset = config, objective, dataset
        self.judge, self.features = judge, features
        self.steps = total_steps(config, dataset)
        self.held_out: Split = getattr(dataset, config.evaluation.split)
        self._references: dict[str, frechet.Gaussian] = {}
        self._reals: dict[str, np.ndarray] = {}
        self.provenance = self._provenance()
        self.metrics = tuple(self.provenance)

    def _names(self, features: Features) -> dict[str, tuple[str, ...]]:
        """The metrics that each kind makes."""
        count, own = count_label(self.config.metrics.samples), features.extractor.name
        suffix = f"_{count}" if own == "inception" else f"_{own}_{count}"
        names = {
            "frechet": (f"{extractors.metric_name(features.extractor)}_{count}",),
            "inception_score": (f"inception_score_{count}" if own == "inception" else f"is{suffix}",),
            "kid": (f"kid_{count}" if own == "inception" else f"kd{suffix}",),
            "precision_recall": (f"precision{suffix}", f"recall{suffix}"),
        }
        return {kind: names[kind] for kind in features.kinds}

    def _provenance(self) -> dict[str, dict[str, Any]]:
        """For every metric, what its numbers depend on beside the tickets."""
        entries: dict[str, dict[str, Any]] = {}
        if self.judge is not None:
            own = {
                "extractor": self.judge.identifier,
                "classifier": str(self.judge.workdir),
                "split": self.config.evaluation.split,
                "images": len(self.held_out.label),
                "seeds": list(self.config.seeds),
            }
            entries |= {"accuracy": own, ORIGINALS: own}
        settings: dict[str, dict[str, Any]] = {
            "frechet": {"reference_images": len(self.dataset.train.label)},
            "inception_score": {"splits": 10, "shuffle_seed": 2020},
            "kid": {"subsets": 100, "subset_size": KID_IMAGES, "subset_seed": 2020},
            "precision_recall": {"neighbor": 3},
        }
        for features in self.features:
            common: dict[str, Any] = {
                "extractor": features.extractor.identifier,
                "samples": self.config.metrics.samples,
                "seeds": list(self.config.seeds),
                "noise": f"stream {SAMPLES} of each seed, batches of {BATCH}",
                "reference": "training split",
                "reference_images": self._real_count,
            }
            if features.extractor.name != "inception":
                common["classifier"] = str(self.config.metrics.classifier)
            for kind, names in self._names(features).items():
                own = common | settings[kind]
                if kind == "inception_score":
                    del own["reference"], own["reference_images"]
                entries |= {name: own for name in names}
        return entries

    @property
    def _real_count(self) -> int:
        """Real images that KID, precision and recall compare with: the first, as many as samples."""
        return min(self.config.metrics.samples, len(self.dataset.train.label))

    def due(self, phase: int) -> bool:
        """Whether the phase is one of those that `config.metrics.every` chooses; every early-bird ticket is."""
        if self.config.experiment == "early_bird":
            return phase > 0 or "dense" in self.config.early_bird.arms
        return phase % self.config.metrics.every == 0 or phase >= self.config.imp.rounds

    def __call__(
        self,
        directory: RunDirectory,
        store: checkpoints.Store,
        phases: Iterable[int],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Measure what results.csv lacks of some kept phases; a ticket's rows are written as soon as they are there.

        Args:
          directory: of the run.
          store: its finished phases.
          phases: their numbers; those that are not due are passed over.
          between: called between tickets, to stop by raising.

        Raises:
          ValueError: if results.csv has such metrics from another extractor or sample count.
          StorageError: if a state is damaged.
        """
        self._claim(directory)
        todo = {phase: self._missing(directory, store, phase) for phase in phases if self.due(phase)}
        total = sum(map(len, todo.values()))
        with tqdm(
            total=total, desc="measuring", unit=" tickets", leave=False, delay=1.0, dynamic_ncols=True
        ) as progress:
            for phase, wanted in todo.items():
                trained = kept.restore(store, phase) if wanted else None
                for i, metrics in wanted.items():
                    assert trained is not None
                    ticket = trained.tickets[i]
                    progress.set_postfix_str(ticket.name)
                    values = self._ticket(i, trained, metrics)
                    directory.add_results(
                        ticket.result(self.config, self.steps, name, values[name]) for name in metrics
                    )
                    progress.update()
                    between()

    def _claim(self, directory: RunDirectory) -> None:
        """Enter the provenance of these metrics into metrics.json, unless it has another one."""
        path = directory.path / "metrics.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        for metric, entry in self.provenance.items():
            for field in entry.keys() - {"classifier"}:  # that may have moved
                there = stored.get(metric, entry).get(field, entry[field])
                if there != entry[field]:
                    raise ValueError(
                        f"{metric} in {directory.path} was measured with {field} {there}, not {entry[field]}; "
                        "`lotto-jax evaluate --force` measures it again."
                    )
        write_atomically(path, json.dumps(stored | self.provenance, indent=2) + "\n")

    def forget(self, directory: RunDirectory) -> None:
        """Remove what the run has of these metrics."""
        directory.drop_results(self.metrics)
        path = directory.path / "metrics.json"
        if path.exists():
            stored = json.loads(path.read_text())
            left = {metric: entry for metric, entry in stored.items() if metric not in self.metrics}
            write_atomically(path, json.dumps(left, indent=2) + "\n")

    def _missing(self, directory: RunDirectory, store: checkpoints.Store, phase: int) -> dict[int, list[str]]:
        """By number of the ticket in its phase, the metrics that results.csv lacks."""
        first = next(filter(self.due, itertools.count()))  # has the accuracy on the originals, one number for the run
        results = {
            ticket.result(self.config, self.steps, name, 0.0): i
            for i, ticket in enumerate(Ticket(*fields) for fields in store.meta(phase)["tickets"])
            for name in self.metrics
            if name != ORIGINALS or (phase, i) == (first, 0)
        }
        found: dict[int, list[str]] = {}
        for result in directory.missing(results):
            found.setdefault(results[result], []).append(result.metric)
        return found

    def _ticket(self, i: int, trained: kept.Kept, metrics: list[str]) -> dict[str, float]:
        """Values of at least the given metrics of one ticket."""
        key = jax.random.fold_in(jax.random.key(np.uint32(trained.tickets[i].seed)), SAMPLES)
        make = functools.partial(
            _make, params=trained.params, model_state=trained.model_state, ticket=np.int32(i), key=key
        )
        values: dict[str, float] = {}
        if ORIGINALS in metrics:
            values[ORIGINALS] = self._accuracy(self.held_out.image)
        if "accuracy" in metrics:
            values["accuracy"] = self._accuracy(self._reconstructions(make))
        for features in self.features:
            names = self._names(features)
            kinds = [kind for kind in features.kinds if set(names[kind]) & set(metrics)]
            if kinds:
                for kind, found in self._distances(features, kinds, self._samples(make)).items():
                    values |= dict(zip(names[kind], found, strict=True))
        return values

    def _samples(self, make: Callable[..., Array]) -> Iterator[UInt8[Array, "batch height width channels"]]:
        """`config.metrics.samples` images, by batches."""
        count = self.config.metrics.samples
        like = Batch(jnp.zeros((BATCH, *self.dataset.image_shape), jnp.uint8), jnp.zeros(BATCH, jnp.int32))
        for number, start in enumerate(range(0, count, BATCH)):
            yield make(self.objective.sample, batch=like, number=np.int32(number))[: count - start]

    def _reconstructions(self, make: Callable[..., Array]) -> Iterator[UInt8[Array, "batch height width channels"]]:
        """The held-out split as the ticket reconstructs it, by batches."""
        count = len(self.held_out.label)
        for number, start in enumerate(range(0, count, BATCH)):
            image, label = (x[start : start + BATCH] for x in self.held_out)
            size = len(label)
            fill = [(0, BATCH - size)]  # so that the last batch needs no program of its own
            padded = (np.pad(x, fill + [(0, 0)] * (x.ndim - 1)) for x in (image, label))
            batch = Batch(*map(jnp.asarray, padded))
            yield make(self.objective.reconstruct, batch=batch, number=np.int32(number))[:size]

    def _accuracy(self, images: np.ndarray | Iterator[Array]) -> float:
        """Of the classifier on images of the held-out split."""
        assert self.judge is not None
        logits = extractors.features(images, self.judge.extractor, ("logits",), BATCH)["logits"]
        return float(np.mean(hits(logits, self.held_out.label)))

    def _distances(self, features: Features, kinds: list[str], images: Iterator[Array]) -> dict[str, tuple[float, ...]]:
        """What one extractor says about samples, by kind."""
        extractor = features.extractor
        rows = {"frechet": extractor.layer, "kid": extractor.layer, "precision_recall": extractor.layer}
        rows["inception_score"] = "logits_unbiased" if extractor.name == "inception" else "logits"
        layers = tuple(dict.fromkeys(rows[kind] for kind in kinds))
        collected = {rows[kind] for kind in kinds if kind != "frechet"}  # the Frechet distance needs only moments
        moments, parts = frechet.Stream(), []
        for part in extractors.stream(images, extractor, layers, BATCH):
            if "frechet" in kinds:
                moments.add(part[extractor.layer])
            parts.append({layer: part[layer] for layer in collected})
        whole = {layer: np.concatenate([part[layer] for part in parts]) for layer in collected}
        values: dict[str, tuple[float, ...]] = {}
        if "frechet" in kinds:
            generated, real = frechet.gaussian(moments.moments()), self._reference(extractor)
            values["frechet"] = (frechet.frechet_distance(generated, real),)
        if "inception_score" in kinds:
            values["inception_score"] = (inception_score(whole[rows["inception_score"]]).mean,)
        if "kid" in kinds:
            values["kid"] = (kernel_distance(whole[extractor.layer], self._real(extractor)).mean,)
        if "precision_recall" in kinds:
            values["precision_recall"] = tuple(precision_recall(whole[extractor.layer], self._real(extractor)))
        return values

    def _reference(self, extractor: extractors.Extractor) -> frechet.Gaussian:
        """Statistics of all training images; kept in the user's cache too, by their content."""
        if extractor.identifier not in self._references:
            found = reference_statistics(self.dataset.train.image, extractor, BATCH)
            warn_bias("samples", self.config.metrics.samples, len(found.mean))
            warn_bias("training images", found.number, len(found.mean))
            self._references[extractor.identifier] = found
        return self._references[extractor.identifier]

    def _real(self, extractor: extractors.Extractor) -> Float[np.ndarray, "images features"]:
        """Features of the first training images, as many as samples."""
        if extractor.identifier not in self._reals:
            images = self.dataset.train.image[: self._real_count]
            self._reals[extractor.identifier] = extractors.features(images, extractor, None, BATCH)[extractor.layer]
        return self._reals[extractor.identifier]


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
    """One batch of images of one ticket of a stack, as they would be saved; what is not finite becomes a number."""
    own_params, own_state = jax.tree.map(lambda x: x[ticket], (params, model_state))
    images = function(own_params, own_state, batch, jax.random.fold_in(key, number))
    return to_uint8(jnp.nan_to_num(images))
