"""The Inception network of the FID: the 2015 TensorFlow graph, not torchvision's InceptionV3.

It differs from the latter in that average pools leave the padding out, that the last block pools by maximum,
and in its 1,008 logits. Batch normalization is folded into the convolutions (`weights.load` does it), and
the 1x1 convolutions that read the same input run as one matrix product.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016;
Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lotto_jax.models import platforms

LAYERS = ("64", "192", "768", "2048", "logits_unbiased", "logits")
LOGITS = 1008

# The default of accelerators (TF32, bfloat16 passes) moves FID; float32 features must be float32.
_HIGHEST = jax.lax.Precision.HIGHEST
_AROUND = ((0, 0), (1, 1), (1, 1), (0, 0))  # a pixel


class _Weights(nn.Module):
    """Kernel and bias of one convolution, under the name it has in the published checkpoints."""

    features: int
    kernel_size: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, channels: int, dtype: Any) -> tuple[Array, Array]:
        shape = (*self.kernel_size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel.astype(dtype), bias.reshape(1, 1, 1, -1).astype(dtype)


def _conv(name: str, x: Array, features: int, kernel: int | tuple[int, int], stride: int = 1, padding="SAME"):
    """ReLU(convolution + bias)."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    weights, bias = _Weights(features, size, name=name)(x.shape[-1], x.dtype)
    if padding == "VALID" and platforms.current() == "cpu":  # up to 3 times slower there as a `lax` convolution
        x = _valid_conv(x, weights, stride)
    else:
        x = jax.lax.conv_general_dilated(
            x, weights, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=_HIGHEST
        )
    return nn.relu(x + bias)


def _valid_conv(x: Array, kernel: Array, stride: int) -> Array:
    """The convolution without padding, as patches x matrix of one image at a time, whose patches fit the cache."""
    height, width = ((x.shape[1 + d] - kernel.shape[d]) // stride + 1 for d in (0, 1))

    def of_image(image: Array) -> Array:
        taps = [
            image[i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            for i, j in np.ndindex(kernel.shape[:2])
        ]
        patches = jnp.concatenate(taps, axis=-1)
        return jnp.matmul(patches, kernel.reshape(patches.shape[-1], -1), precision=_HIGHEST)

    return jax.lax.map(of_image, x)


def _pointwise(x: Array, **features: int) -> list[Array]:
    """The 1x1 convolutions of `x` named by the keywords, as one matrix product; before ReLU."""
    pairs = [_Weights(n, name=name)(x.shape[-1], x.dtype) for name, n in features.items()]
    kernel = jnp.concatenate([kernel[0, 0] for kernel, _ in pairs], axis=-1)
    bias = jnp.concatenate([bias for _, bias in pairs], axis=-1)
    y = jnp.matmul(x, kernel, precision=_HIGHEST) + bias
    sizes = list(features.values())
    return jnp.split(y, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)], axis=-1)


def _average_pool(x: Array) -> Array:
    """3x3 mean, stride 1, over the pixels that exist: padding counts neither in the sum nor in the number."""
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    sums, counts = (_pool(jnp.pad(a, _AROUND), jnp.add) for a in (x, ones))
    return sums / counts


def _max_pool(x: Array, stride: int = 2) -> Array:
    return _pool(x, jnp.maximum, stride)


def _pool(x: Array, combine: Callable[[Array, Array], Array], stride: int = 1) -> Array:
    """3x3 windows combined along height, then width; slices, because window reductions are 4 times slower on CPU."""
    for axis in (1, 2):
        span = stride * ((x.shape[axis] - 3) // stride) + 1
        x = functools.reduce(combine, [jax.lax.slice_in_dim(x, i, i + span, stride, axis) for i in range(3)])
    return x


class _InceptionA(nn.Module):
    """35x35; mixed_5b to mixed_5d."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        a, b, c, pool = _pointwise(x, branch1x1=64, branch5x5_1=48, branch3x3dbl_1=64, branch_pool=self.pool_features)
        b = _conv("branch5x5_2", nn.relu(b), 64, 5)
        c = _conv("branch3x3dbl_2", nn.relu(c), 96, 3)
        c = _conv("branch3x3dbl_3", c, 96, 3)
        # A 1x1 convolution and an average over pixels commute, so the pool runs on fewer channels.
        return jnp.concatenate([nn.relu(a), b, c, nn.relu(_average_pool(pool))], axis=-1)


class _InceptionB(nn.Module):
    """35x35 to 17x17; mixed_6a."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        a = _conv("branch3x3", x, 384, 3, 2, "VALID")
        (b,) = _pointwise(x, branch3x3dbl_1=64)
        b = _conv("branch3x3dbl_2", nn.relu(b), 96, 3)
        b = _conv("branch3x3dbl_3", b, 96, 3, 2, "VALID")
        return jnp.concatenate([a, b, _max_pool(x)], axis=-1)


class _InceptionC(nn.Module):
    """17x17; mixed_6b to mixed_6e."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n = self.width
        a, b, c, pool = _pointwise(x, branch1x1=192, branch7x7_1=n, branch7x7dbl_1=n, branch_pool=192)
        b = _conv("branch7x7_2", nn.relu(b), n, (1, 7))
        b = _conv("branch7x7_3", b, 192, (7, 1))
        c = _conv("branch7x7dbl_2", nn.relu(c), n, (7, 1))
        c = _conv("branch7x7dbl_3", c, n, (1, 7))
        c = _conv("branch7x7dbl_4", c, n, (7, 1))
        c = _conv("branch7x7dbl_5", c, 192, (1, 7))
        return jnp.concatenate([nn.relu(a), b, c, nn.relu(_average_pool(pool))], axis=-1)


class _InceptionD(nn.Module):
    """17x17 to 8x8; mixed_7a."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        a, b = _pointwise(x, branch3x3_1=192, branch7x7x3_1=192)
        a = _conv("branch3x3_2", nn.relu(a), 320, 3, 2, "VALID")
        b = _conv("branch7x7x3_2", nn.relu(b), 192, (1, 7))
        b = _conv("branch7x7x3_3", b, 192, (7, 1))
        b = _conv("branch7x7x3_4", b, 192, 3, 2, "VALID")
        return jnp.concatenate([a, b, _max_pool(x)], axis=-1)


class _InceptionE(nn.Module):
    """8x8; mixed_7b, which pools by average, and mixed_7c, which pools by maximum."""

    max_pool: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        heads = {"branch1x1": 320, "branch3x3_1": 384, "branch3x3dbl_1": 448}
        if self.max_pool:  # a maximum does not commute with the convolution
            a, b, c = _pointwise(x, **heads)
            (pool,) = _pointwise(_max_pool(jnp.pad(x, _AROUND, constant_values=-jnp.inf), 1), branch_pool=192)
        else:
            a, b, c, pool = _pointwise(x, **heads, branch_pool=192)
            pool = _average_pool(pool)
        b = nn.relu(b)
        c = _conv("branch3x3dbl_2", nn.relu(c), 384, 3)
        parts = [
            nn.relu(a),
            _conv("branch3x3_2a", b, 384, (1, 3)),
            _conv("branch3x3_2b", b, 384, (3, 1)),
            _conv("branch3x3dbl_3a", c, 384, (1, 3)),
            _conv("branch3x3dbl_3b", c, 384, (3, 1)),
            nn.relu(pool),
        ]
        return jnp.concatenate(parts, axis=-1)


class InceptionV3(nn.Module):
    """The FID Inception network with its feature taps.

    Attributes:
      dtype: of the computation, float32 or bfloat16; params are float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch 299 299 3"]) -> dict[str, Float[Array, "batch features"]]:
        """Features of resized images.

        Args:
          images: in [-1, 1], as the functions of `resize.MODES` return them.

        Returns:
          float32 arrays `[batch, n]` by layer: `64`, `192`, `768`, `2048` (spatial means), `logits_unbiased`
          (the product with the weights only; what the Inception score uses) and `logits`. Under jit, the
          layers that the caller drops are not computed.
        """

        def mean(x: Array) -> Array:
            return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

        x = images.astype(self.dtype)
        x = _conv("Conv2d_1a_3x3", x, 32, 3, 2, "VALID")
        x = _conv("Conv2d_2a_3x3", x, 32, 3, 1, "VALID")
        x = _max_pool(_conv("Conv2d_2b_3x3", x, 64, 3))
        features = {"64": mean(x)}
        (x,) = _pointwise(x, Conv2d_3b_1x1=80)
        x = _max_pool(_conv("Conv2d_4a_3x3", nn.relu(x), 192, 3, 1, "VALID"))
        features["192"] = mean(x)
        x = _InceptionA(32, name="Mixed_5b")(x)
        x = _InceptionA(64, name="Mixed_5c")(x)
        x = _InceptionA(64, name="Mixed_5d")(x)
        x = _InceptionB(name="Mixed_6a")(x)
        x = _InceptionC(128, name="Mixed_6b")(x)
        x = _InceptionC(160, name="Mixed_6c")(x)
        x = _InceptionC(160, name="Mixed_6d")(x)
        x = _InceptionC(192, name="Mixed_6e")(x)
        features["768"] = mean(x)
        x = _InceptionD(name="Mixed_7a")(x)
        x = _InceptionE(max_pool=False, name="Mixed_7b")(x)
        x = _InceptionE(max_pool=True, name="Mixed_7c")(x)
        features["2048"] = pooled = mean(x)
        kernel, bias = _Weights(LOGITS, name="fc")(pooled.shape[-1], jnp.float32)
        features["logits_unbiased"] = jnp.matmul(pooled, kernel[0, 0], precision=_HIGHEST)
        features["logits"] = features["logits_unbiased"] + bias[0, 0]
        return features
