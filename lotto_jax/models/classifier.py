"""ResNet-18 in its CIFAR form: the downstream classifier and the second feature extractor.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; with a 3x3 stem of stride 1 and no max
pool, as is customary for 32x32 images.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        conv = functools.partial(nn.Conv, self.features, use_bias=False)
        strides = (self.stride, self.stride)
        y = nn.relu(norm(name="norm1")(conv((3, 3), strides, name="conv1")(x)))
        y = norm(name="norm2")(conv((3, 3), name="conv2")(y))
        if x.shape != y.shape:
            x = norm(name="shortcut_norm")(conv((1, 1), strides, name="shortcut")(x))
        return nn.relu(x + y)


class _Classifier(nn.Module):
    """All of the network, so that params have one component, `classifier`."""

    classes: int
    width: int

    @nn.compact
    def __call__(self, image: Array, train: bool) -> tuple[Array, Array]:
        x = nn.Conv(self.width, (3, 3), use_bias=False, name="stem")(2.0 * image - 1.0)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="stem_norm")
        x = nn.relu(norm(x))
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                x = _Block(self.width * 2**stage, stride, name=f"stage{stage + 1}_block{block + 1}")(x, train)
        features = jnp.mean(x, axis=(1, 2))
        return features, nn.Dense(self.classes, name="head")(features)


class ResNet18(nn.Module):
    """ResNet-18 for small images (11.2 M params at width 64).

    Attributes:
      classes: number of labels.
      width: channels of the first stage; 64 in the paper, less on CPU.
    """

    classes: int = 10
    width: int = 64

    def setup(self) -> None:
        """The one component."""
        self.classifier = _Classifier(self.classes, self.width)

    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch classes"]:
        """Logits of images in [0, 1]; `train` normalizes by the batch and updates the stored statistics."""
        return self.classifier(image, train)[1]

    def features(
        self, image: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch classes"]]:
        """Penultimate features (8 width wide) and logits of images in [0, 1], with stored statistics."""
        return self.classifier(image, False)
