"""A multilayer perceptron in plain JAX and optax, pruned to 90 % while it trains (Zhu & Gupta 2018)."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning

images, labels = load_digits(return_X_y=True)
images = images / 16.0


def network(params, x):
    return jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"]) @ params["out"]["kernel"]


def loss(params):
    return optax.softmax_cross_entropy_with_integer_labels(network(params, images), labels).mean()


@jax.jit
def step(params, opt_state):
    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


first, second = jax.random.split(jax.random.key(0))
params = {
    "hidden": {"kernel": 0.1 * jax.random.normal(first, (64, 128)), "bias": jnp.zeros(128)},
    "out": {"kernel": 0.1 * jax.random.normal(second, (128, 10))},
}
tx = sparse.sparsify(optax.adam(1e-2), sparse.magnitude(), sparse.cubic(0.9, begin=20, end=150, every=10))
opt_state = tx.init(params)
for _ in range(200):
    params, opt_state = step(params, opt_state)
accuracy = jnp.mean(jnp.argmax(network(params, images), -1) == labels)
print(f"sparsity {pruning.sparsity(sparse.mask_of(opt_state)):.3f}, accuracy {accuracy:.3f}")
