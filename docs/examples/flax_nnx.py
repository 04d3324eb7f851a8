"""Flax NNX with its Optimizer: half of the weights go at once, layer by layer."""

import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

import lotto_jax.pruning.optax as sparse

images, labels = load_digits(return_X_y=True)
images = jnp.asarray(images / 16.0, jnp.float32)


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(64, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


@nnx.jit
def step(model, optimizer):
    loss = lambda model: optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()
    optimizer.update(model, nnx.grad(loss)(model))


model = Classifier(nnx.Rngs(0))
tx = sparse.sparsify(optax.adam(1e-2), sparse.magnitude("uniform"), sparse.one_shot(0.5, at=50))
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
for _ in range(100):
    step(model, optimizer)
accuracy = jnp.mean(jnp.argmax(model(images), -1) == labels)
kernel = model.hidden.kernel[...]
print(f"sparsity {jnp.mean(kernel == 0):.3f}, accuracy {accuracy:.3f}")
