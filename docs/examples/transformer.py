"""A small transformer that learns to reverse its input; its kernels become 2:4 sparse (two of four inputs are left)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning
from lotto_jax.pruning import patterns


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(16, 64)(tokens) + self.param("place", nn.initializers.normal(0.1), (8, 64))
        for _ in range(2):
            x += nn.SelfAttention(4)(nn.LayerNorm()(x))
            x += nn.Dense(64)(nn.gelu(nn.Dense(256)(nn.LayerNorm()(x))))
        return nn.Dense(16)(nn.LayerNorm()(x))


def loss(params, key):
    tokens = jax.random.randint(key, (64, 8), 0, 16)
    logits = Transformer().apply(params, tokens)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, ::-1]).mean()


@jax.jit
def step(params, opt_state, key):
    updates, opt_state = tx.update(jax.grad(loss)(params, key), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def in_mlp(path, leaf):
    return pruning.is_kernel(path, leaf) and "Dense_" in pruning.path_name(path)


params = Transformer().init(jax.random.key(0), jnp.zeros((1, 8), int))
two_of_four = {"pattern": patterns.nm(2, 4), "prunable": in_mlp}
tx = sparse.sparsify(optax.adam(3e-3), sparse.magnitude(), sparse.one_shot(0.5, at=200), **two_of_four)
opt_state = tx.init(params)
for key in jax.random.split(jax.random.key(1), 300):
    params, opt_state = step(params, opt_state, key)
print(f"sparsity {pruning.sparsity(sparse.mask_of(opt_state)):.3f}, loss {loss(params, jax.random.key(2)):.4f}")
