"""Haiku: three rounds of iterative pruning, each from the initial weights, inside the compiled step."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning

images, labels = load_digits(return_X_y=True)
images = jnp.asarray(images / 16.0, jnp.float32)
network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([128, 10])(x)))
tx = sparse.sparsify(optax.adam(1e-2), sparse.magnitude(), sparse.iterative(0.5, rounds=3, round_steps=60))


@jax.jit
def step(params, opt_state):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(network.apply(params, images), labels).mean()

    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


params = network.init(jax.random.key(0), images)
opt_state = tx.init(params)
for _ in range(4 * 60 + 3 * 2):  # a round and the last training; two calls go back to the start
    params, opt_state = step(params, opt_state)
accuracy = jnp.mean(jnp.argmax(network.apply(params, images), -1) == labels)
print(f"sparsity {pruning.sparsity(sparse.mask_of(opt_state)):.3f}, accuracy {accuracy:.3f}")
