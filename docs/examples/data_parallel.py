"""Data parallel over all devices: batches are split, params and masks are copies. Try JAX_NUM_CPU_DEVICES=2."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning

mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
images, labels = load_digits(return_X_y=True)
images, labels = images[:1792].astype("float32") / 16.0, labels[:1792]
images, labels = jax.device_put((images, labels), NamedSharding(mesh, P("data")))
tx = sparse.sparsify(optax.adam(1e-2), sparse.magnitude(), sparse.cubic(0.9, begin=20, end=150, every=10))


def network(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["out"]


@jax.jit
def train(params, opt_state, images, labels):
    def step(_, carry):
        params, opt_state = carry
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(network(p, images), labels).mean()
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.lax.fori_loop(0, 200, step, (params, opt_state))


keys = jax.random.split(jax.random.key(0))
params = {"hidden": jax.random.normal(keys[0], (64, 128)) / 8, "out": jax.random.normal(keys[1], (128, 10)) / 8}
params, opt_state = jax.device_put((params, tx.init(params)), NamedSharding(mesh, P()))
params, opt_state = train(params, opt_state, images, labels)
accuracy = jnp.mean(jnp.argmax(network(params, images), -1) == labels)
print(f"sparsity {pruning.sparsity(sparse.mask_of(opt_state)):.3f}, accuracy {accuracy:.3f}")
