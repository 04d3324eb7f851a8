"""Global pruning of the 6.5 M weights of a DCGAN-sized network, against PyTorch's and against a sort."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax.pruning import global_prune, magnitude, ones
from scripts.benchmarks.common import Row, ask_torch, interleaved

# The kernels of the paper's DCGAN: generator, then discriminator.
SIZES = [1048576, 2097152, 524288, 131072, 1728, 3072, 131072, 524288, 2097152, 8192]


@jax.jit
def _argsort_prune(params: dict, mask: dict, fraction: jax.Array) -> dict:
    """The usual way: concatenate, argsort, scatter the ranks back."""
    flat = jnp.concatenate([jnp.abs(p).reshape(-1) for p in params.values()])
    kept = jnp.concatenate([m.reshape(-1) for m in mask.values()])
    order = jnp.argsort(jnp.where(kept, flat, jnp.inf))
    removed = jnp.round(fraction * jnp.sum(kept)).astype(jnp.int32)
    rank = jnp.zeros(flat.size, jnp.int32).at[order].set(jnp.arange(flat.size))
    parts = jnp.split(kept & (rank >= removed), np.cumsum([m.size for m in mask.values()])[:-1])
    return dict(zip(mask, parts, strict=True))


def run() -> Iterator[Row]:
    """Rows: this library, then its ratio to each peer."""
    rng = np.random.default_rng(0)
    params = {f"layer{i}": jnp.asarray(rng.normal(size=s).astype(np.float32)) for i, s in enumerate(SIZES)}
    mask = ones(params, prunable=lambda path, leaf: True)
    scores, fraction = magnitude(params), jnp.float32(0.2)
    prune = jax.jit(lambda s, m, f: global_prune(s, m, f))
    times = interleaved(
        {
            "ours": lambda: jax.block_until_ready(prune(scores, mask, fraction)),
            "argsort": lambda: jax.block_until_ready(_argsort_prune(params, mask, fraction)),
        }
    )
    name = f"global_prune, {sum(SIZES) / 1e6:.2f} M scores"
    yield Row(name, times["ours"] * 1e3, "ms", "limit aimed at: 60 ms", times["ours"] * 1e3, 60, "lower")
    yield Row(
        "  the same by argsort",
        times["argsort"] * 1e3,
        "ms",
        "argsort / ours",
        times["argsort"] / times["ours"],
        40,
    )
    torch = ask_torch("pruning_torch.py", *map(str, SIZES))
    if torch is None:
        yield Row("  torch global_unstructured", None, "ms", "needs scripts/test.sh --parity")
    else:
        ratio = torch["seconds"] / times["ours"]
        yield Row("  torch global_unstructured", torch["seconds"] * 1e3, "ms", "torch / ours", ratio, 8)
