"""What the configurations of the paper have in common."""

from collections.abc import Callable

from ml_collections import ConfigDict

from lotto_jax import config as base


def paper(dataset: str, model: dict, optimizer: dict, components: tuple[str, ...], **objective) -> ConfigDict:
    """A search at the paper's scale: 5 seeds, 20 rounds of 20 %, both components and each by itself.

    Args:
      dataset: its TFDS name; images of CelebA are resized to 32x32.
      model: the section `config.model`.
      optimizer: the section `config.optimizer`.
      components: of the networks.
      **objective: the section `config.objective`.
    """
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = dataset
    if dataset == "celeb_a":
        config.dataset.image_size = 32  # 64 is the other size of the networks
    config.model = model
    config.objective = objective
    config.optimizer = optimizer
    config.imp.pruned = ("both", *components)
    config.evaluation.points = 50
    return config


def autoencoder(dataset: str, model: dict, **objective) -> ConfigDict:
    """Autoencoders and VAEs: Adam at 1e-3, batches of 128, 50 epochs."""
    config = paper(dataset, model, {"name": "adam", "learning_rate": 1e-3}, ("encoder", "decoder"), **objective)
    config.train.batch_size = 128
    config.train.epochs = 50
    return config


def gan(dataset: str, model: dict, optimizer: dict, **objective) -> ConfigDict:
    """GANs: batches of 64 for every update, 200 epochs."""
    config = paper(dataset, model, optimizer, ("generator", "discriminator"), latent=128, **objective)
    config.train.batch_size = 64 * objective.get("critic_steps", 1)
    config.train.epochs = 200
    config.metrics.names = ("frechet", "inception_score")
    return config


def denoiser(dataset: str, model: dict, objective: dict, width: int, **small) -> tuple[ConfigDict, dict]:
    """Diffusions and flows: Adam at 2e-4, batches of 128, 200 epochs, samples in 50 steps; and their variants.

    Args:
      dataset: its TFDS name.
      model: the section `config.model`.
      objective: the section `config.objective`.
      width: of the network in the variant `cpu`.
      **small: other fields of the network in the variant `cpu`.
    """
    config = paper(dataset, model, {"name": "adam", "learning_rate": 2e-4}, (), **objective)
    config.train.batch_size = 128
    config.train.epochs = 200
    config.imp.arms = ("winning", "random", "random_pruned")
    config.metrics.names = ("frechet", "precision_recall")

    def scaled_down(config: ConfigDict) -> ConfigDict:
        config = two_cores(config, epochs=4, rounds=4, fraction=0.5, width=width)
        config.model.update(small)
        config.objective.ema = 0.99
        config.optimizer.learning_rate = 1e-3
        return config

    def early_bird(config: ConfigDict) -> ConfigDict:
        config.experiment = "early_bird"
        config.early_bird.compressions = (0.3, 0.5, 0.7)
        for field in ("pruned", "arms"):
            config.imp[field] = base.default().imp[field]
        return config

    return config, {"cpu": scaled_down, "early_bird": early_bird}


def wgan(dataset: str, variant: str) -> ConfigDict:
    """A Wasserstein GAN with clipped weights, five critic steps and RMSprop (Arjovsky et al. 2017)."""
    config = gan(
        dataset,
        {"name": "dcgan", "width": 64},
        {"name": "rmsprop", "learning_rate": 5e-5},
        loss="wasserstein",
        critic_steps=5,
        weight_clip=0.01,
    )
    # Weights clipped to 0.01 are smaller than the generator's: half of all at once would be the whole critic.
    small = cpu(width=16, epochs=8, rounds=4, fraction=0.2)
    return choose(variant, config, cpu=small, gp=gradient_penalty, **by_rules(small))


def classifier(dataset: str, **objective) -> ConfigDict:
    """ResNet-18, for accuracies and features: one seed, Adam at 1e-3 that falls to zero as a cosine."""
    config = base.default()
    config.experiment = "dense"
    config.seeds = (0,)
    config.dataset.name = dataset
    config.model = {"name": "resnet18", "width": 64}
    config.objective = objective
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 128
    config.train.schedule = "cosine"
    if dataset == "celeb_a":
        config.dataset.image_size = 32  # as in the configurations of the networks that it looks at
    return config


def narrow(epochs: int, width: int, shift: bool = False) -> Callable[[ConfigDict], ConfigDict]:
    """A classifier of another width and training; `shift` if images are not moved then."""

    def change(config: ConfigDict) -> ConfigDict:
        config.model.width, config.train.epochs = width, epochs
        if shift:
            config.objective.shift = 0
        return config

    return change


def choose(variant: str, config: ConfigDict, **variants: Callable[[ConfigDict], ConfigDict]) -> ConfigDict:
    """The configuration itself, or one of its variants.

    Args:
      variant: its name; empty for the configuration itself.
      config: to change.
      **variants: what makes each of them.

    Raises:
      ValueError: if there is none of this name.
    """
    if variant and variant not in variants:
        raise ValueError(f"there is no variant {variant!r}; it takes {' or '.join(variants)}.")
    return variants[variant](config) if variant else config


def transfer(config: ConfigDict, component: str, target: str) -> ConfigDict:
    """A search for the tickets of `target` that also trains those which another search found for `component`."""
    config.experiment = "transfer"
    config.imp.pruned = (target,)
    config.imp.arms = ("winning", "random", "transfer")
    config.transfer.component = component
    return config


def cpu(**scale) -> Callable[[ConfigDict], ConfigDict]:
    """The variant that is scaled down to two CPU cores, see `two_cores`."""
    return lambda config: two_cores(config, **scale)


def by_rules(change: Callable[[ConfigDict], ConfigDict]) -> dict[str, Callable[[ConfigDict], ConfigDict]]:
    """The variants `:cpu_lamp` and `:cpu_layerwise` of what `:cpu` is: layers are not pooled by bare magnitudes."""

    def pruned_by(rule: str) -> Callable[[ConfigDict], ConfigDict]:
        def changed(config: ConfigDict) -> ConfigDict:
            config = change(config)
            config.imp.rule = rule
            return config

        return changed

    return {"cpu_lamp": pruned_by("lamp"), "cpu_layerwise": pruned_by("layerwise_magnitude")}


def gradient_penalty(config: ConfigDict) -> ConfigDict:
    """A Wasserstein GAN with a gradient penalty in place of clipped weights (Gulrajani et al. 2017)."""
    config.model.batch_norm = False
    del config.objective.weight_clip
    config.objective.gradient_penalty_weight = 10.0
    config.optimizer = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
    return config


def two_cores(
    config: ConfigDict, epochs: int, rounds: int, fraction: float, width: int = 0, seeds: int = 2
) -> ConfigDict:
    """Scale a configuration of the paper down to half an hour on a laptop: what the variants `:cpu` are.

    A narrower network (width 0: as it is), 10,000 training examples, batches of 64, two seeds or three, both components
    pruned, and fewer rounds with a larger fraction; 2,000 samples where samples are measured.
    """
    config.seeds = tuple(range(seeds))
    config.dataset.train_examples = 10_000
    if width:
        config.model.width = width
    config.train.batch_size = 64 * config.objective.get("critic_steps", 1)
    config.train.epochs = epochs
    config.evaluation.points = 0  # of training as short as this they would be a third
    config.imp.rounds = rounds
    config.imp.fraction = fraction
    config.imp.pruned = ("both",)
    config.metrics.names = ()  # these need another run first; `lotto-jax evaluate` adds them
    config.metrics.samples = 2_000
    config.log_every = 10
    return config
