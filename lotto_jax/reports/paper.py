"""The paper as data: its tables, its figures, and which configuration makes which number.

Kalibhat, Balaji and Feizi, "Winning Lottery Tickets in Deep Generative Models", AAAI 2021. This one list drives the
merged report, `configs/README.md`, `docs/figures.md` and `scripts/reproduce.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from lotto_jax import config as configuration


class Network(NamedTuple):
    """A row of the paper's Table 1 with one dataset.

    Attributes:
      family: AE, VAE or GAN.
      name: of the network.
      params: how many, in the paper's words.
      dataset: as its authors call it.
      sparsity: of the winning ticket in the paper.
      judged_by: its evaluation metrics in the paper.
      config: a file of configs/, without `.py`.
    """

    family: str
    name: str
    params: str
    dataset: str
    sparsity: float
    judged_by: str
    config: str


def _row(family: str, name: str, params: str, judged_by: str, stem: str, **sparsities: float) -> list[Network]:
    files = {"MNIST": "mnist", "CIFAR-10": "cifar10", "CelebA": "celeba"}
    names = {"mnist": "MNIST", "cifar10": "CIFAR-10", "celeba": "CelebA"}
    found = {names[dataset]: sparsity for dataset, sparsity in sparsities.items()}
    return [Network(family, name, params, d, s, judged_by, f"{stem}_{files[d]}") for d, s in found.items()]


_LOSS, _FID, _GAN = "reconstruction loss, test accuracy", "FID, test accuracy", "FID, discriminator loss"
TABLE1 = (
    *_row("AE", "linear autoencoder", "0.2 M", _LOSS, "linear_ae", mnist=0.892),
    *_row("AE", "convolutional autoencoder", "3 M", _LOSS, "conv_ae", cifar10=0.956, celeba=0.985),
    *_row("VAE", "VAE", "5.6 M", _FID, "vae", cifar10=0.79, celeba=0.79),
    *_row("VAE", "beta-VAE", "5.6 M", _FID, "beta_vae", cifar10=0.865, celeba=0.865),
    *_row("VAE", "ResNet-VAE", "2.8 M", _FID, "resnet_vae", cifar10=0.931, celeba=0.931),
    *_row("GAN", "DCGAN", "6.5 M", _GAN, "dcgan", cifar10=0.832, celeba=0.832),
    *_row("GAN", "SNGAN", "6.7 M", _GAN, "sngan", cifar10=0.892, celeba=0.892),
    *_row("GAN", "ResNet-DCGAN", "2.2 M", _GAN, "resnet_dcgan", cifar10=0.79, celeba=0.79),
    *_row("GAN", "WGAN", "6.5 M", _GAN, "wgan", cifar10=0.737, celeba=0.59),
)


class Method(NamedTuple):
    """A row of the paper's Table 2: FID, weights, FLOPs and seconds of training; `name` as `table2.METHODS` has it."""

    name: str
    fid: float
    weights: int
    flops: float
    seconds: float


TABLE2_CONFIG = "table2_dcgan_cifar10"
TABLE2 = (
    Method("unpruned", 37.71, 5_651_584, 1.12e16, 4590.5),
    Method("IMP", 37.77, 5_651_584, 1.16e16, 4477.7),
    Method("early bird", 33.49, 1_148_190, 0.13e16, 2417.07),
    Method("early bird, mixed precision", 34.28, 1_148_190, 0.13e16, 2131.09),
    Method("SNIP", 56.02, 5_651_584, 1.12e16, 4689.5),
    Method("GraSP", 65.53, 5_651_584, 1.12e16, 4603.3),
)

Kind = Literal["sparsity", "rewinding", "early_stopping", "pictures", "methods"]
LOSS, DISTANCE, ACCURACY = ("reconstruction_loss", "loss"), ("fid", "fd_"), ("accuracy",)
SCORE, GAME = ("inception_score", "is_"), ("discriminator_loss",)


class Item(NamedTuple):
    """A panel of a figure.

    Attributes:
      config: whose run it shows.
      title: of the panel.
      kind: what is drawn.
      metrics: prefixes of the metrics that may be shown, the best first; of columns of results.csv.
      arms: that are drawn.
    """

    config: str
    title: str
    kind: Kind = "sparsity"
    metrics: tuple[str, ...] = DISTANCE
    arms: tuple[str, ...] = ("winning", "random")


class Figure(NamedTuple):
    """A figure of the paper.

    Attributes:
      number: 1 to 8 and A.1 to A.8.
      title: in short.
      says: what the paper reads off it.
      items: its panels.
    """

    number: str
    title: str
    says: str
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """Of its files, and of `scripts/reproduce.py --only`."""
        return f"fig{self.number.replace('.', '')}".lower()


_DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "celeba": "CelebA"}
_NAMES = {row.config.rpartition("_")[0]: row.name for row in TABLE1}


def _items(stems: tuple[str, ...], datasets: tuple[str, ...], **fields: Any) -> tuple[Item, ...]:
    """A panel for every network that Table 1 has on these datasets."""
    there = {row.config for row in TABLE1}
    pairs = [(s, d) for s in stems for d in datasets if f"{s}_{d}" in there]
    return tuple(Item(f"{s}_{d}", f"{_NAMES[s]} on {_DATASETS[d]}", **fields) for s, d in pairs)


_AES, _VAES = ("linear_ae", "conv_ae"), ("vae", "beta_vae", "resnet_vae")
_GANS = ("dcgan", "resnet_dcgan", "sngan", "wgan")
_ALL, _TWO = ("mnist", "cifar10", "celeba"), ("cifar10", "celeba")
FIGURES = (
    Figure(
        "1",
        "Winning against random tickets of DCGAN on CelebA",
        "Winning tickets clearly outperform random tickets at high sparsity; their samples are better at all of them.",
        (*_items(("dcgan",), ("celeba",)), Item("dcgan_celeba", "samples of DCGAN on CelebA", "pictures")),
    ),
    Figure(
        "2",
        "Early stopping",
        "Winning tickets converge faster than random tickets. The paper does not say of which network.",
        _items((*_AES, *_VAES), ("mnist", "cifar10"), kind="early_stopping", metrics=()),
    ),
    Figure(
        "3",
        "Pruning strategy",
        "On CIFAR-10 iterative pruning and rewinding to iteration 10 give better tickets of DCGAN at high sparsity "
        "than one-shot pruning and rewinding to initialization.",
        (
            Item("dcgan_cifar10", "one-shot pruning, DCGAN on CIFAR-10", arms=("winning", "one_shot")),
            Item("dcgan_cifar10", "rewinding, DCGAN on CIFAR-10", "rewinding", arms=("winning",)),
            Item("linear_ae_mnist", "one-shot pruning, linear autoencoder", "sparsity", LOSS, ("winning", "one_shot")),
            Item("linear_ae_mnist", "rewinding, linear autoencoder", "rewinding", LOSS, ("winning",)),
        ),
    ),
    Figure(
        "4",
        "Autoencoders by reconstruction loss",
        "Winning tickets preserve the loss up to 89 % on MNIST, 96 % on CIFAR-10 and 99 % on CelebA, better than "
        "random tickets and than tickets with one component pruned.",
        _items(_AES, _ALL, metrics=LOSS),
    ),
    Figure(
        "5",
        "VAEs by FID",
        "79 % preserves FID of the VAE, 87 % of the beta-VAE, 93 % of the ResNet-VAE. Pruning the encoder alone "
        "changes FID little, pruning the decoder alone is worse.",
        _items(_VAES, _TWO),
    ),
    Figure(
        "6",
        "GANs on CIFAR-10 by FID",
        "Winning tickets at 83 % of DCGAN, 89 % of SNGAN, 79 % of ResNet-DCGAN and 73.7 % of WGAN. Pruning both "
        "components is better than pruning one.",
        _items(_GANS, ("cifar10",)),
    ),
    Figure(
        "7",
        "Early-bird tickets",
        "Early birds need 88 % fewer FLOPs and 47 % less time (53.5 % in mixed precision) at hardly another FID.",
        (Item("table2_dcgan_cifar10", "DCGAN on CIFAR-10", "methods"),),
    ),
    Figure(
        "8",
        "Transfer between the VAE's decoder and DCGAN's generator",
        "Transferred tickets match a network's own winning tickets up to 80 %, both ways.",
        (
            Item("transfer_vae_to_dcgan_cifar10", "VAE to DCGAN", arms=("winning", "random", "transfer")),
            Item("transfer_dcgan_to_vae_cifar10", "DCGAN to VAE", arms=("winning", "random", "transfer")),
        ),
    ),
    Figure(
        "A.1",
        "GANs on CelebA by FID",
        "Winning tickets at 80 % of DCGAN and SNGAN, 50 % of WGAN and 75 % of ResNet-DCGAN.",
        _items(_GANS, ("celeba",)),
    ),
    Figure(
        "A.2",
        "Autoencoders by the accuracy of a classifier",
        "Winning tickets have a better accuracy than random tickets at all sparsities.",
        _items(_AES, _ALL, metrics=ACCURACY),
    ),
    Figure(
        "A.3",
        "VAEs by the accuracy of a classifier",
        "Winning tickets have a better accuracy than random tickets.",
        _items(_VAES, _TWO, metrics=ACCURACY),
    ),
    Figure(
        "A.4",
        "DCGAN by Inception score",
        "Winning tickets have higher Inception scores than random tickets.",
        _items(("dcgan",), _TWO, metrics=SCORE),
    ),
    Figure(
        "A.5",
        "GANs by discriminator loss",
        "Random tickets have a visibly higher discriminator loss than winning tickets.",
        _items(_GANS, _TWO, metrics=GAME),
    ),
    Figure(
        "A.6",
        "Samples of DCGAN",
        "Winning tickets make good images up to 79 % on both datasets.",
        _items(("dcgan",), _TWO, kind="pictures"),
    ),
    Figure(
        "A.7",
        "Samples of the VAE",
        "Winning tickets keep their quality up to 73 % on both datasets.",
        _items(("vae",), _TWO, kind="pictures"),
    ),
    Figure(
        "A.8",
        "Reconstructions of autoencoders",
        "Winning tickets keep their quality up to 73 % on MNIST, 94 % on CIFAR-10 and 98 % on CelebA.",
        _items(_AES, _ALL, kind="pictures"),
    ),
)
REWOUND = ":rewind0"  # the variant of a configuration that rewinds to initialization

# What tells the configurations apart, by the beginning of their names.
_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "linear_ae": {"model.name": "linear_autoencoder"},
    "conv_ae": {"model.name": "conv_autoencoder"},
    "vae": {"model.name": "vae", "objective.beta": 1.0},
    "beta_vae": {"model.name": "vae", "objective.beta": 4.0},
    "resnet_vae": {"model.name": "resnet_vae"},
    "dcgan": {"model.name": "dcgan", "objective.loss": "bce"},
    "sngan": {"model.name": "sngan"},
    "resnet_dcgan": {"model.name": "resnet_dcgan"},
    "wgan": {"model.name": "dcgan", "objective.loss": "wasserstein"},
    "resnet18": {"model.name": "resnet18"},
}
# By experiment and network, or any network, what a file is called.
_EXPERIMENTS: Mapping[str, Mapping[str, str]] = {
    "imp": {"": "{network}_{dataset}"},
    "dense": {"resnet18": "resnet18_{dataset}"},
    "table2": {"dcgan": "table2_dcgan_{dataset}"},
    "transfer": {"dcgan": "transfer_vae_to_dcgan_{dataset}", "vae": "transfer_dcgan_to_vae_{dataset}"},
}
_STORED = {"mnist": "mnist", "cifar10": "cifar10", "celeb_a": "celeba"}


def identify(config: Mapping[str, Any]) -> str | None:
    """Which configuration of the paper a run's configuration is, at whatever scale; None if it is another.

    Args:
      config: as config.json has it.

    Returns:
      The name of a file of configs/, with `:rewind0` or `:gp` for these variants.
    """
    flat = configuration.flatten(dict(config))
    network = next((n for n, own in _NETWORKS.items() if all(flat.get(k) == v for k, v in own.items())), None)
    dataset = _STORED.get(flat["dataset.name"])
    if network is None or dataset is None or flat["imp.rule"] != "global_magnitude":
        return None
    kind = _EXPERIMENTS.get(flat["experiment"], {})
    name = kind.get(network, kind.get("", "")).format(network=network, dataset=dataset)
    if name and "objective.gradient_penalty_weight" in flat:
        return f"{name}:gp"
    return name + (REWOUND if name and flat["imp.rewind_step"] == 0 else "") or None


def network(config: Mapping[str, Any]) -> str | None:
    """What the paper calls a run's network; None if it has none such."""
    bare = (identify(config) or "").partition(":")[0]
    return next((row.name for row in TABLE1 if row.config == bare), None)


def shown_in(config: str) -> list[str]:
    """The tables and figures that a configuration is for, in the paper's words."""
    bare, _, variant = config.partition(":")
    found = ["Table 1"] if not variant and any(row.config == bare for row in TABLE1) else []
    found += ["Table 2"] if config == TABLE2_CONFIG else []
    for figure in FIGURES:
        kinds = {item.kind for item in figure.items if item.config == bare}
        if (variant and "rewinding" in kinds) or (not variant and kinds):
            found.append(f"Figure {figure.number}")
    return found
