"""ResNet-18 in its CIFAR form: the downstream classifier and the second feature extractor.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; with a 3x3 stem of stride 1 and no max
pool, as is customary for 32x32 images.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import blocks, layers


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    features: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = functools.partial(layers.Conv, self.features, use_bias=False, dtype=self.dtype)
        strides = (self.stride, self.stride)
        y = blocks.norm_relu(conv((3, 3), strides, name="conv1")(x), train, self.dtype, "norm1")
        y = blocks.batch_norm(train, self.dtype, "norm2")(conv((3, 3), name="conv2")(y))
        if x.shape != y.shape:
            x = conv((1, 1), strides, name="shortcut")(x)
            x = blocks.batch_norm(train, self.dtype, "shortcut_norm")(x)
        return nn.relu(x + y)


class _Classifier(nn.Module):
    """All of the network, so that params have one component, `classifier`."""

    classes: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, image: Array, train: bool) -> tuple[Array, Array]:
        stem = layers.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name="stem")
        x = blocks.norm_relu(stem(2.0 * image - 1.0), train, self.dtype, "stem_norm")
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = _Block(self.width * 2**stage, stride, self.dtype, name=name)(x, train)
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        logits = nn.Dense(self.classes, dtype=self.dtype, name="head")(features)
        return features, logits.astype(jnp.float32)


class ResNet18(nn.Module):
    """ResNet-18 for small images (11.2 M params at width 64).

    Attributes:
      classes: number of labels, or of attributes.
      width: channels of the first stage; 64 in the paper, less on CPU.
      dtype: of the computation; params and batch statistics are float32.
    """

    classes: int = 10
    width: int = 64
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """The one component."""
        self.classifier = _Classifier(self.classes, self.width, self.dtype)

    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch classes"]:
        """Logits of images in [0, 1], float32; `train` normalizes by the batch and updates the stored statistics."""
        return self.classifier(image, train)[1]

    def features(
        self, image: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch classes"]]:
        """Penultimate features (8 width wide) and logits of images in [0, 1], with stored statistics."""
        return self.classifier(image, False)
