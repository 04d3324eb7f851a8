"""Evidence lower bound of VAEs and beta-VAEs (Kingma and Welling 2014; Higgins et al. 2017)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.models.vae import VAE
from lotto_jax.objectives import single
from lotto_jax.objectives.ranges import signed_from_unit, to_unit
from lotto_jax.objectives.reconstruction import Loss, check_loss
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective

BETTER: dict[str, Better] = {"loss": "lower", "reconstruction_loss": "lower", "kl": "neither"}


def kl_to_normal(
    mean: Float[Array, "batch latent"], log_variance: Float[Array, "batch latent"]
) -> Float[Array, "batch"]:
    """KL divergence in nats from a diagonal normal to the standard one, summed over the latent vector."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance, axis=1)


def make(
    model: VAE,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    beta: float = 1.0,
    loss: Loss = "mse",
) -> Objective:
    """The objective of a VAE: minimizes `reconstruction_loss + beta * kl`, in nats an image, averaged over
    the batch.

    Images are scaled to [-1, 1], the range of the decoder. The sample from the posterior comes from the
    step's key. Metrics of a step and of `evaluate`: `loss`, `reconstruction_loss`, `kl`.

    Args:
      model: with components `encoder` and `decoder`.
      optimizer: updates all params.
      image_shape: (height, width, channels).
      beta: weight of the KL term; 1 is the bound itself.
      loss: "mse" sums the squared errors over an image in [-1, 1] (a normal likelihood of variance 1/2, up to
        a constant); "bce" sums the binary cross-entropies of the image in [0, 1] (a Bernoulli likelihood).

    Raises:
      ValueError: for an unknown `loss`.
    """
    check_loss(loss)

    def initialize(key: Key[Array, ""]) -> tuple[PyTree, Key[Array, ""]]:
        init_key, noise_key, run_key = jax.random.split(key, 3)
        return model.init(init_key, jnp.zeros((1, *image_shape)), noise_key, train=False), run_key

    def terms(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""], train: bool
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        image = to_unit(batch.image)
        signed = signed_from_unit(image)
        (logits, mean, log_variance), model_state = model.apply(
            {"params": params, **model_state}, signed, key, train, mutable=list(model_state)
        )
        if loss == "mse":
            errors = jnp.square(jnp.tanh(logits) - signed)
        else:  # tanh(a) in [-1, 1] is sigmoid(2 a) in [0, 1]
            errors = optax.sigmoid_binary_cross_entropy(2.0 * logits, image)
        reconstruction = jnp.mean(jnp.sum(errors, axis=(1, 2, 3)))
        kl = jnp.mean(kl_to_normal(mean, log_variance))
        total = reconstruction + beta * kl
        return total, (model_state, {"loss": total, "reconstruction_loss": reconstruction, "kl": kl})

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        return terms(params, model_state, batch, key, False)[1][1]

    def decode(params: PyTree, model_state: PyTree, z: Array) -> Array:
        logits: Any = model.apply({"params": params, **model_state}, z, False, method="decode")
        return jax.nn.sigmoid(2.0 * logits)

    def reconstruct(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Array:
        del key  # the mean of the posterior stands for it
        image = signed_from_unit(to_unit(batch.image))
        mean, _ = model.apply({"params": params, **model_state}, image, False, method="encode")
        return decode(params, model_state, mean)

    def sample(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Array:
        return decode(params, model_state, jax.random.normal(key, (batch.image.shape[0], model.encoder.latent)))

    components = ("encoder", "decoder")

    return single.make(
        components,
        initialize,
        functools.partial(terms, train=True),
        evaluate,
        optimizer,
        model.encoder,
        BETTER,
        reconstruct,
        sample,
    )
