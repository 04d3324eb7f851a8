"""Trained classifiers by name: the directory of a run of configs/resnet18_*.py."""

from pathlib import Path
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from lotto_jax.metrics import extractors
from lotto_jax.models.classifier import ResNet18
from lotto_jax.runs import directory as directories
from lotto_jax.runs import kept


class Classifier(NamedTuple):
    """A trained dense classifier.

    Attributes:
      workdir: where its run lies.
      network: the module; it computes in float32.
      params, model_state: of the first seed.
      dataset: name of the dataset that it was trained on.
      image_shape: (height, width, channels) of its images.
      extractor: its penultimate features and logits; `extractor.identifier` has the checksum of the weights.
    """

    workdir: Path
    network: ResNet18
    params: PyTree
    model_state: PyTree
    dataset: str
    image_shape: tuple[int, int, int]
    extractor: extractors.Extractor

    @property
    def identifier(self) -> str:
        """Names the weights."""
        return self.extractor.identifier

    def check(self, dataset: str, image_shape: tuple[int, int, int]) -> None:
        """Raise ValueError unless it was trained on such images of such a dataset."""
        if (self.dataset, self.image_shape) != (dataset, image_shape):
            raise ValueError(
                f"The classifier in {self.workdir} was trained on {_images(self.dataset, self.image_shape)}, but this "
                f"run has {_images(dataset, image_shape)}; set config.metrics.classifier to one that fits."
            )


def _images(dataset: str, shape: tuple[int, int, int]) -> str:
    return f"{dataset} images of {'x'.join(map(str, shape))}"


def load(workdir: str | Path) -> Classifier:
    """The dense classifier of the first seed of a finished run.

    Raises:
      ValueError: if there is no run, or none of a classifier, or it has not finished training.
      StorageError: if its stored state is damaged.
    """
    workdir = Path(workdir)
    train = "train one with `lotto-jax run`, for instance of configs/resnet18_cifar10.py"
    if not (workdir / directories.CONFIG).is_file():
        raise ValueError(f"There is no classifier in {workdir}; {train}.")
    config = directories.config_of(workdir)
    if config.model.name != "resnet18":
        raise ValueError(f"The run in {workdir} is of {config.model.name}, which is no classifier; {train}.")
    with kept.opened(workdir) as store:
        if any(ticket.arm != "dense" for ticket in kept.tickets_of(store, 0)):
            raise ValueError(f"The run in {workdir} has no dense network; {train}.")
        phase = kept.restore(store, 0)
        height, width, channels = store.meta(0)["image_shape"]
    params, model_state = jax.tree.map(lambda x: x[0], (phase.params, phase.model_state))
    head = params["classifier"]["head"]["kernel"]
    network = ResNet18(classes=head.shape[1], width=params["classifier"]["stem"]["kernel"].shape[3])
    extractor = extractors.resnet18(network, params, model_state, channels)
    return Classifier(workdir, network, params, model_state, config.dataset.name, (height, width, channels), extractor)
