"""The configuration: every field with its default, in one place.

A file in configs/ calls `default()`, sets what differs and returns it. The result is locked, so that a misspelled field
is an error there and on the command line (`--config.imp.rounds=5`).
"""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict


def default() -> ConfigDict:
    """All fields of a run: iterative magnitude pruning of a linear autoencoder on the bundled digits."""
    config = ConfigDict()
    config.experiment = "imp"  # a key of lotto_jax.experiments.EXPERIMENTS, or "package.module:attribute" of your own
    config.seeds = (0, 1, 2)

    config.dataset = ConfigDict()
    config.dataset.name = "digits"  # digits, mixture, a TFDS name, folder, or "package.module:function" of your own
    config.dataset.data_dir = ""  # of TFDS datasets (empty: $TFDS_DATA_DIR, then ~/tensorflow_datasets), or the folder
    config.dataset.train_examples = 0  # the first so many training examples; 0: all of them
    config.dataset.validation_examples = 0  # held out from the end of the training split; 0: the dataset's own, if any
    config.dataset.image_size = 0  # centered squares resized to this height and width; 0: images as they are stored
    config.dataset.classes = ()  # only examples of these classes, which keep their numbers; (): of all
    config.dataset.device_budget_mb = 4096.0  # on each device; where data take more, training streams; 0: always

    config.model = ConfigDict({"name": "linear_autoencoder", "latent": 128})  # or "package.module:attribute"
    config.objective = ConfigDict({})  # fields of the loss; `name` only where the network leaves it open
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3})

    config.train = ConfigDict()
    config.train.batch_size = 128
    config.train.epochs = 10  # of every ticket, the steps before the rewind point included
    config.train.schedule = "constant"  # of the learning rate: constant, or cosine, which ends at zero

    config.precision = "float32"  # of the computation: float32, bfloat16, float16 or float8 (emulated); params: float32
    config.matmul_precision = "default"  # of float32 products in training: default (the backend's: bfloat16 passes on
    # TPUs, TF32 on GPUs, float32 on CPUs), high, or highest (float32 everywhere); what measures takes the highest
    config.parallel = ConfigDict()
    config.parallel.tickets = "auto"  # auto, vmap, sequential or sharded; see training/loop.py

    config.distributed = ConfigDict()  # one run by several processes, as a rule one a host; see docs/hosts.md
    config.distributed.coordinator = "auto"  # auto: as the cluster says; off; or host:port of the first process
    config.distributed.processes = 1  # with host:port: how many there are,
    config.distributed.process = 0  # and which of them this one is, from 0
    config.distributed.timeout = 120.0  # seconds that they wait for each other to come, and for a sign of life

    config.imp = ConfigDict()
    config.imp.rounds = 20  # n
    config.imp.fraction = 0.2  # p: share of the remaining weights removed each round
    config.imp.rule = (
        "global_magnitude"  # layerwise_magnitude, lamp, a pattern (docs/sparsity.md), or "module:function"
    )
    config.imp.rewind_step = 10  # i: winning tickets start from the state after i steps; 0: from initialization
    config.imp.rewind_steps = ()  # more steps whose states are kept, for searches that share the dense networks
    config.imp.pruned = ("both",)  # both, and/or component names: each is a ticket search of its own
    config.imp.arms = ("winning", "random")  # and/or random_pruned, snip, grasp; transfer in its experiment
    config.imp.score_batches = 1  # batches whose mean loss snip and grasp take
    config.imp.one_shot_sparsities = ()  # pruned at once from the dense network, of the first entry of `pruned`

    config.transfer = ConfigDict()  # of the experiment transfer, which reads config.imp, too
    config.transfer.source = ""  # run directory of the search whose tickets are taken over
    config.transfer.component = "both"  # what that search pruned; it becomes the only entry of config.imp.pruned here

    config.transfer.takes = "ticket"  # ticket: mask and rewound weights; mask: on this search's own snapshot
    config.transfer.seed_shift = 0  # a seed takes the ticket of the seed so many places behind it in config.seeds
    config.transfer.align = False  # whether a mask's channels are permuted as the dense networks' match

    config.siblings = ConfigDict()  # of the experiment siblings, which `lotto-jax analyse --siblings=N` runs
    config.siblings.source = ""  # run directory of the search whose winning tickets are trained again
    config.siblings.copies = 2  # of every ticket, each with an order of the data of its own
    config.siblings.every = 1  # rounds from one that is trained again to the next; the dense network always is

    config.early_bird = ConfigDict()  # of the experiments early_bird, which does not read config.imp, and table2
    config.early_bird.compressions = (0.5,)  # shares of the batch-norm channels removed; each is a ticket of its own
    config.early_bird.pruned = "both"  # both, or the component whose channels are ranked and removed
    config.early_bird.arms = ("dense", "early_bird")  # and/or early_bird_mixed: the ticket trains in mixed precision
    config.early_bird.mixed_precision = "bfloat16"  # bfloat16, float16 or float8; params stay float32
    config.early_bird.interval = 0  # steps between two channel masks; 0: one epoch
    config.early_bird.lookback = 5  # masks compared
    config.early_bird.threshold = 0.1  # delta: distance below which they have settled
    config.early_bird.minimum = 1  # channels that every layer keeps at least
    config.early_bird.search_share = 0.5  # of training; if no ticket is found by then, the last mask there is taken
    config.early_bird.optimizer = "carried"  # of the compacted ticket: carried moments, or fresh ones
    config.early_bird.round_to = 1  # layers keep a multiple of so many channels; 8 or more suits matrix units
    config.early_bird.slimming = 0.0  # coefficient of the L1 term on every gamma of the dense training (slimming)

    config.evaluation = ConfigDict()
    config.evaluation.split = "test"  # test or validation
    config.evaluation.batch_size = 500
    config.evaluation.images = 8  # per ticket in the image grids
    config.evaluation.points = 0  # evenly spaced steps of training at which tickets are evaluated, for Figure 2

    config.metrics = ConfigDict()  # more than the objective's own; `lotto-jax evaluate` adds them to a run later
    config.metrics.names = ()  # keys of lotto_jax.metrics.METRICS, or "package.module:attribute" of your own
    config.metrics.features = "auto"  # of all but accuracy: inception, dinov2, clip, classifier; auto: what there is
    config.metrics.classifier = ""  # run directory of a classifier of the same images (configs/resnet18_*.py)
    config.metrics.samples = 10_000  # a ticket, for all but accuracy; part of the metric's name: fid_10k
    config.metrics.every = 1  # rounds between measurements; the last one, one-shot and early-bird tickets always

    config.log_every = 50  # steps between points of the training curves
    config.checkpoint = ConfigDict()
    config.checkpoint.every_seconds = 60.0  # between saves inside a round; a round's end is always saved
    config.checkpoint.keep_states = "all"  # final states: all, or last (only the newest round's)

    config.report = ConfigDict()
    config.report.tolerance = 0.0  # for winning_sparsity; 0: max(one standard deviation, 10 %), and 10 points for FID
    return config.lock()


CHOICES = {
    "precision": ("float32", "bfloat16", "float16", "float8"),
    "matmul_precision": ("default", "high", "highest"),
    "train.schedule": ("constant", "cosine"),
    "parallel.tickets": ("auto", "vmap", "sequential", "sharded"),
    "transfer.takes": ("ticket", "mask"),
    "early_bird.optimizer": ("carried", "fresh"),
    "early_bird.mixed_precision": ("bfloat16", "float16", "float8"),
    "evaluation.split": ("test", "validation"),
    "metrics.features": ("auto", "inception", "dinov2", "clip", "classifier"),
    "checkpoint.keep_states": ("all", "last"),
}
# Sections whose fields belong to the thing that `name` chooses; they are checked where it is built.
OPEN_SECTIONS = ("model", "objective", "optimizer")
# Fields that change no ticket: where data lie, which processes compute, and what else is measured (metrics.json guards
# against mixing that).
NOT_COMPUTED = (
    "dataset.data_dir",
    "dataset.device_budget_mb",
    "distributed.coordinator",
    "distributed.processes",
    "distributed.process",
    "distributed.timeout",
    "siblings.source",  # whose configuration is compared
    "metrics.names",
    "metrics.features",
    "metrics.classifier",
    "metrics.samples",
    "metrics.every",
)
MINIMA = {
    "train.batch_size": 1,
    "train.epochs": 1,
    "distributed.processes": 1,
    "distributed.process": 0,
    "distributed.timeout": 1,
    "imp.rounds": 0,
    "imp.rewind_step": 0,
    "imp.score_batches": 1,
    "transfer.seed_shift": 0,
    "siblings.copies": 2,
    "siblings.every": 1,
    "early_bird.interval": 0,
    "early_bird.lookback": 2,
    "early_bird.minimum": 1,
    "early_bird.round_to": 1,
    "early_bird.slimming": 0,
    "evaluation.batch_size": 1,
    "evaluation.images": 0,
    "evaluation.points": 0,
    "metrics.samples": 10,
    "metrics.every": 1,
    "dataset.train_examples": 0,
    "dataset.validation_examples": 0,
    "dataset.image_size": 0,
    "dataset.device_budget_mb": 0,
    "log_every": 1,
    "checkpoint.every_seconds": 0,
    "report.tolerance": 0,
}


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """`{"imp.rounds": 20, ...}` of a nested dict."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def validate(config: ConfigDict) -> None:
    """Raise ValueError with one sentence on the first field that is unknown, missing, mistyped or out of range."""
    found, known = flatten(config.to_dict()), flatten(default().to_dict())
    named = ("model.name", "optimizer.name")
    is_open = lambda key: key.split(".")[0] in OPEN_SECTIONS and key not in named  # noqa: E731
    for key in found:
        if key not in known and not is_open(key):
            raise ValueError(f"config.{key} is not a field; lotto_jax/config.py lists them all.")
    for key, value in known.items():
        if is_open(key):
            continue
        if key not in found:
            raise ValueError(f"config.{key} is missing; start from lotto_jax.config.default().")
        numbers = isinstance(value, float) and isinstance(found[key], int)
        if not isinstance(found[key], type(value)) and not numbers:
            raise ValueError(f"config.{key} is {found[key]!r}, but it takes a {type(value).__name__}.")
    for key, choices in CHOICES.items():
        if found[key] not in choices:
            raise ValueError(f"config.{key} is {found[key]!r}; it takes one of {', '.join(choices)}.")
    for key, minimum in MINIMA.items():
        if not found[key] >= minimum:
            raise ValueError(f"config.{key} is {found[key]}; it must be at least {minimum}.")
    if not config.seeds or len(set(config.seeds)) != len(config.seeds):
        raise ValueError(f"config.seeds is {config.seeds}; it takes one or more different integers.")
    if not all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in config.seeds):
        raise ValueError(f"config.seeds is {config.seeds}; seeds are integers from 0 to 2**31 - 1.")


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `as_dict`, over the defaults, so that `values` may be of an older version."""
    tuples = lambda x: tuple(x) if isinstance(x, list) else x  # noqa: E731
    config = default().unlock()
    for key, value in values.items():
        if key in OPEN_SECTIONS or not isinstance(value, dict):
            config[key] = value if isinstance(value, dict) else tuples(value)
        else:
            config[key].update({name: tuples(entry) for name, entry in value.items()})
    return config.lock()


def as_dict(config: ConfigDict) -> dict[str, Any]:
    """Plain nested dict as JSON would return it (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def digest(config: ConfigDict) -> str:
    """Twelve hex digits that identify the configuration (of what is computed, not of where the data lie)."""
    values = {k: v for k, v in flatten(as_dict(config)).items() if k not in NOT_COMPUTED}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
