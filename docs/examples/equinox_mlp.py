"""Equinox: weights that move towards 0 go (Sanh et al. 2020)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning

images, labels = load_digits(return_X_y=True)
images = jnp.asarray(images / 16.0, jnp.float32)

model = eqx.nn.MLP(64, 10, 128, depth=1, key=jax.random.key(0))
params, static = eqx.partition(model, eqx.is_inexact_array)
tx = sparse.sparsify(optax.adam(1e-2), sparse.movement(), sparse.cubic(0.9, begin=20, end=150, every=10))


def network(params, x):
    return jax.vmap(eqx.combine(params, static))(x)


@jax.jit
def step(params, opt_state):
    loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(network(p, images), labels).mean()
    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


opt_state = tx.init(params)
for _ in range(200):
    params, opt_state = step(params, opt_state)
accuracy = jnp.mean(jnp.argmax(network(params, images), -1) == labels)
print(f"sparsity {pruning.sparsity(sparse.mask_of(opt_state)):.3f}, accuracy {accuracy:.3f}")
