"""Early birds (You et al. 2020) of a classifier: stop when the channel mask settles, compact, train on what is left."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from lotto_jax import pruning
from lotto_jax.models.compacted import following

images, labels = load_digits(return_X_y=True)
images = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16.0, jnp.float32)


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(nn.Conv(64, (3, 3), strides=2, use_bias=False)(x)))
        return nn.Dense(10)(x.mean((1, 2)))


@jax.jit
@following
def step(variables, opt_state):
    def loss(params):
        logits, new = Classifier().apply(variables | {"params": params}, images, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

    grads, new = jax.grad(loss, has_aux=True)(variables["params"])
    updates, opt_state = tx.update(grads, opt_state)
    return {"params": optax.apply_updates(variables["params"], updates), **new}, opt_state


tx, variables, masks = optax.adam(1e-2), Classifier().init(jax.random.key(0), images), []
opt_state = tx.init(variables["params"])
while len(masks) < 5 or pruning.mask_distance(masks[-1], masks[-5]) > 0.1:
    for _ in range(5):
        variables, opt_state = step(variables, opt_state)
    masks.append(pruning.channel_mask(pruning.batch_norm_scales(variables["params"]), 0.5))
small = pruning.compact(lambda v, x: Classifier().apply(v, x, train=False), variables, masks[-1], images)
variables, opt_state = small.variables, small.shrink(opt_state)
for _ in range(150):
    variables, opt_state = step(variables, opt_state)
accuracy = jnp.mean(jnp.argmax(following(Classifier().apply)(variables, images, train=False), -1) == labels)
kernel = variables["params"]["Conv_0"]["kernel"]
print(f"found after {5 * len(masks)} steps, channels {kernel.shape[-1]}, accuracy {accuracy:.3f}")
