"""Global pruning of 6.6 M scores (a DCGAN) and, with `--sizes`, of more, against sorts and PyTorch.

`--sizes=6.6,100,1000` takes numbers of scores in millions. From 1,000 M on scores are bfloat16. Each size is timed
on one device and, in a process of its own, sharded over 8 host devices. What does not fit into the free memory is
left out, and so are sorts that would take minutes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lotto_jax.pruning import global_prune, ones
from scripts.benchmarks.common import ROOT, Row, ask_torch, seconds

# The kernels of the paper's DCGAN: generator, then discriminator.
SIZES = [1048576, 2097152, 524288, 131072, 1728, 3072, 131072, 524288, 2097152, 8192]
LEAF = 2**25  # scores of a leaf, at most, in larger pools
DEVICES = 8
BFLOAT16_FROM, SORTED_UP_TO = 1000, 200  # million scores
# Bytes a score beside the scores themselves, by what is timed: `memory_analysis` of the programs, and a little more.
BYTES = {"ours": 14, "sort": 10, "argsort": 25, "torch": 40}
SPARE = 2  # GiB, for what else runs


def _leaves(millions: float) -> list[int]:
    if millions == 6.6:
        return SIZES
    total = round(millions * 1e6)
    count = -(-total // LEAF)
    return [total // count // DEVICES * DEVICES] * count


def _scores(millions: float) -> dict[str, jax.Array]:
    dtype = jnp.bfloat16 if millions >= BFLOAT16_FROM else jnp.float32
    draw = jax.jit(lambda key, size: jnp.abs(jax.random.normal(key, (size,), dtype)), static_argnums=1)
    return {f"layer{i:03}": draw(jax.random.key(i), n) for i, n in enumerate(_leaves(millions))}


def _lacking(what: str, millions: float) -> str | None:
    """Why the free memory does not do, or None."""
    meminfo = Path("/proc/meminfo").read_text()
    free = next(int(line.split()[1]) for line in meminfo.splitlines() if "MemAvailable" in line) / 2**20
    each = BYTES[what] + (2 if millions >= BFLOAT16_FROM else 4)
    needed = each * sum(_leaves(millions)) / 2**30 + SPARE
    return None if needed < free else f"left out: needs {needed:.1f} GiB, {free:.1f} are free"


def _sort(scores: dict[str, jax.Array], mask: dict[str, jax.Array], fraction: jax.Array) -> dict[str, jax.Array]:
    """A threshold from a sort; scores that are equal to it stay, so the number removed is not exact."""
    flat = jnp.concatenate([jnp.where(mask[name], s, jnp.inf) for name, s in scores.items()])
    threshold = jnp.sort(flat)[jnp.round(fraction * flat.size).astype(jnp.int32)]
    return {name: mask[name] & (s >= threshold) for name, s in scores.items()}


def _argsort(scores: dict[str, jax.Array], mask: dict[str, jax.Array], fraction: jax.Array) -> dict[str, jax.Array]:
    """The usual way: concatenate, argsort, scatter the ranks back."""
    flat = jnp.concatenate(list(scores.values()))
    kept = jnp.concatenate(list(mask.values()))
    order = jnp.argsort(jnp.where(kept, flat, jnp.inf))
    removed = jnp.round(fraction * jnp.sum(kept)).astype(jnp.int32)
    rank = jnp.zeros(flat.size, jnp.int32).at[order].set(jnp.arange(flat.size))
    parts = jnp.split(kept & (rank >= removed), np.cumsum([m.size for m in mask.values()])[:-1])
    return dict(zip(mask, parts, strict=True))


def _timed(prune: Callable[..., dict[str, jax.Array]], scores: dict[str, jax.Array], repeats: int) -> float:
    mask = ones(scores, prunable=lambda path, leaf: True)
    mask = {name: jax.device_put(m, scores[name].sharding) for name, m in mask.items()}
    compiled = jax.jit(prune).lower(scores, mask, jnp.float32(0.2)).compile()
    return seconds(lambda: jax.block_until_ready(compiled(scores, mask, jnp.float32(0.2))), repeats, int(repeats > 1))


def _repeats(millions: float) -> int:
    return 7 if millions < 50 else 3


def _sharded(millions: float) -> float:
    """Seconds of `global_prune` where every leaf lies on 8 host devices; in a process that has them."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(DEVICES), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.benchmarks.pruning", str(millions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def run(sizes: Sequence[float] = (6.6,)) -> Iterator[Row]:
    """For each number of scores, in millions: this library, and its ratio to each peer."""
    for millions in sizes:
        dtype = "bfloat16" if millions >= BFLOAT16_FROM else "float32"
        name = f"global_prune, {sum(_leaves(millions)) / 1e6:,.4g} M {dtype} scores"
        if lacking := _lacking("ours", millions):
            yield Row(name, None, "ms", lacking)
            continue
        scores = _scores(millions)
        ours = _timed(global_prune, scores, _repeats(millions))
        target = 60 if millions == 6.6 else None
        peer = "limit aimed at: 60 ms" if target else ""
        yield Row(name, 1e3 * ours, "ms", peer, 1e3 * ours if target else None, target, "lower")
        for label, prune, least in (("argsort", _argsort, 40), ("sort", _sort, None)):
            lacking = _lacking(label, millions)
            if millions > SORTED_UP_TO:
                lacking = "left out: minutes"
            if lacking:
                yield Row(f"  the same by {label}", None, "ms", lacking)
                continue
            theirs = _timed(prune, scores, _repeats(millions) if millions < 50 else 1)
            wanted = least if target else None
            yield Row(f"  the same by {label}", 1e3 * theirs, "ms", f"{label} / ours", theirs / ours, wanted)
        del scores
        yield from _torch(millions, ours)
        if lacking := _lacking("ours", millions):
            yield Row(f"  sharded over {DEVICES} host devices", None, "ms", lacking)
        else:
            sharded = _sharded(millions)
            peer = f"one device; {os.cpu_count()} cores"
            yield Row(f"  sharded over {DEVICES} host devices", 1e3 * sharded, "ms", peer, sharded / ours)


def _torch(millions: float, ours: float) -> Iterator[Row]:
    name = "  torch global_unstructured, float32"
    lacking = _lacking("torch", millions)
    torch = None if lacking else ask_torch("pruning_torch.py", *map(str, _leaves(millions)))
    if torch is None:
        yield Row(name, None, "ms", lacking or "needs scripts/test.sh --parity")
    else:
        target = 8 if millions == 6.6 else None
        yield Row(name, 1e3 * torch["seconds"], "ms", "torch / ours", torch["seconds"] / ours, target)


def _main(millions: float) -> None:
    place = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    scores = {name: jax.device_put(s, place) for name, s in _scores(millions).items()}
    print(json.dumps({"seconds": _timed(global_prune, scores, _repeats(millions))}))


if __name__ == "__main__":
    _main(float(sys.argv[1]))
