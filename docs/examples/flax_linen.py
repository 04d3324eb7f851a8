"""Flax Linen with its TrainState: RigL keeps 10 % of the weights from the first step on (Evci et al. 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1) / 16.0


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(32, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


@jax.jit
def step(state):
    def loss(params):
        logits = state.apply_fn(sparse.forward_params(params, state.opt_state), images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


model = Classifier()
tx = sparse.sparsify(optax.adam(1e-2), sparse.rigl(), sparse.constant(0.9, every=10, end=120))
state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(0), images), tx=tx)
for _ in range(160):
    state = step(state)
accuracy = jnp.mean(jnp.argmax(model.apply(state.params, images), -1) == labels)
print(f"sparsity {pruning.sparsity(sparse.mask_of(state.opt_state)):.3f}, accuracy {accuracy:.3f}")
