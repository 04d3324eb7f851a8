"""Channel masks over batch-norm scales, and the early-bird criterion that says when the masks have settled.

Sources: network slimming (Liu et al., ICCV 2017) ranks channels by |gamma|; Drawing Early-Bird Tickets (You et al.,
ICLR 2020) prunes by one global threshold and watches the mask distance. A channel mask is a flat dict `{leaf name: bool
array}` over the scales (True = kept), so that it means the same for Flax, Haiku, Equinox or a dict of arrays.

Differences from the published PyTorch code of the Early-Bird paper: that code sorts the N values of |gamma| and keeps
the channels strictly above the value at index int(N p). So it removes int(N p) + 1 channels, more where the threshold
value is tied, and it can empty a layer. Here exactly round(N p) channels go, ties are broken by position, and every
layer keeps `minimum` channels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from lotto_jax.pruning import selection
from lotto_jax.pruning.masks import Params, Path, path_name

Scales = Mapping[str, Float[Array, "..."]]
ChannelMask = dict[str, Bool[Array, "..."]]

# The field that holds a scale, and the fields that can hold the shift of its norm: Flax, Haiku, PyTorch, textbooks.
SHIFT_OF = {"scale": ("bias", "offset"), "gamma": ("beta",), "weight": ("bias",)}


def field(name: str) -> str:
    """The field that a leaf name ends in: the last part, or the part before it where NNX adds `value`."""
    parts = name.split("/")
    return parts[-2] if parts[-1] == "value" and len(parts) > 1 else parts[-1]


def _shift_name(name: str, leaves: Mapping[str, Array]) -> str | None:
    """The name of the shift (beta) of the norm whose scale is `name`, or None where the norm has no shift."""
    head, _, tail = name.rpartition(field(name))
    names = [head + shift + tail for shift in SHIFT_OF.get(field(name), ())]
    return next((n for n in names if n in leaves and leaves[n].shape == leaves[name].shape), None)


def is_scale(path: Path, leaf: Array) -> bool:
    """Whether `leaf` looks like the scale of a norm: named `scale` or `gamma`, one axis longer than 1."""
    return field(path_name(path)) in ("scale", "gamma") and leaf.ndim >= 1 and leaf.size == max(leaf.shape)


def batch_norm_scales(
    params: Params, predicate: Callable[[Path, Array], bool] = is_scale
) -> dict[str, Float[Array, "..."]]:
    """The scales (gamma) of `params`, as a flat dict by leaf name, for `channel_mask`.

    Args:
      params: pytree of arrays, without batch statistics.
      predicate: called with the key path and the leaf. The default cannot tell batch norm from layer or group norm;
        give a predicate on the path where a network has both and only batch norm should be ranked. (Compaction leaves
        the channels of a layer norm alone in any case.)

    Raises:
      ValueError: if no leaf is accepted: a network without batch norm has no channels to rank.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    scales = {path_name(path): leaf for path, leaf in leaves if predicate(path, leaf)}
    if not scales:
        raise ValueError(
            "No batch-norm scale was found in params (leaves named 'scale' or 'gamma'); channel pruning "
            "needs a network with batch norm, or a predicate that accepts its scales."
        )
    return scales


def channel_mask(scales: Scales, fraction: float | Float[Array, ""], minimum: int = 1) -> ChannelMask:
    """Keep the channels with the largest |gamma| over all layers together; removes exactly round(N * fraction) of N.

    Ties are broken by position (the earlier channel goes). The `minimum` largest channels of each layer always stay,
    and the next smallest elsewhere go in their place. Works under `jit` and `vmap`; `fraction` may be traced.

    Args:
      scales: pytree (a flat dict from `batch_norm_scales`) of float arrays, one entry a channel.
      fraction: share of all channels to remove, in [0, 1). Rounding is to nearest, half to even.
      minimum: channels that every layer keeps at least.

    Returns:
      A pytree of boolean arrays with the structure and shapes of `scales`, True = kept.

    Raises:
      ValueError: if there are no scales, or if `fraction` (given as a number) is outside [0, 1) or would leave a layer
        with fewer than `minimum` channels. A traced fraction that large removes all that may be removed.

    >>> channel_mask({"bn/scale": jnp.array([0.5, -0.1, 0.9, 0.3])}, 0.5)
    {'bn/scale': Array([ True, False,  True, False], dtype=bool)}
    """
    leaves, treedef = jax.tree.flatten(scales)
    if not leaves:
        raise ValueError("There are no batch-norm scales to rank; channel pruning needs a network with batch norm.")
    total = sum(leaf.size for leaf in leaves)
    removable = total - sum(min(minimum, leaf.size) for leaf in leaves)
    if isinstance(fraction, int | float | np.number):
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction is {fraction}; the share of channels to remove must lie in [0, 1).")
        if (asked := round(round(float(fraction), selection.DECIMALS) * total)) > removable:
            raise ValueError(
                f"fraction {fraction} would remove {asked} of {total} channels and so leave a layer "
                f"with fewer than minimum={minimum}; at most {removable} can go: use a fraction up to "
                f"{removable / total:.4g}."
            )
    size = [jnp.abs(leaf) for leaf in leaves]
    count = selection.rounded_share(jnp.asarray(fraction, jnp.float32), jnp.int32(total))
    gone = selection.lowest(size, [~_largest(x, minimum) for x in size], jnp.clip(count, 0, removable))
    return jax.tree.unflatten(treedef, [~leaf for leaf in gone])


def _largest(x: Float[Array, "..."], count: int) -> Bool[Array, "..."]:
    """Where the `count` largest entries are (all entries, if there are no more); of equal entries the last count."""
    count = min(count, x.size)
    last_first = jax.lax.top_k(jnp.flip(x.reshape(-1)), count)[1]  # top_k takes the first of equal ones
    return jnp.zeros(x.size, bool).at[x.size - 1 - last_first].set(True).reshape(x.shape)


def apply_channel_mask(params: Params, mask: ChannelMask) -> Params:
    """Params with gamma and beta exactly 0 in the masked channels, so that each such channel outputs 0 from its norm.

    The contract: every leaf that `mask` names is multiplied by its mask, and so is the shift of the same norm: the leaf
    of the same parent and shape named `bias`/`offset` (for `scale`), `beta` (for `gamma`) or `bias` (for `weight`). A
    norm may have no shift. Where a shift has another name, put the shift into the mask as well:
    `mask["b1"] = mask["g1"]`. Nothing else changes; running statistics, the convolution before the norm and the kernel
    after it keep their values.

    Args:
      params: pytree of arrays.
      mask: `{leaf name: bool array}` of `channel_mask`.

    Raises:
      ValueError: if `mask` names a leaf that params lack, or one of another shape.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kept = masked_leaves({path_name(path): leaf for path, leaf in leaves}, mask)

    def leaf(path: Path, x: Array) -> Array:
        keep = kept.get(path_name(path))
        return x if keep is None else jnp.where(keep, x, jnp.zeros((), x.dtype))

    return jax.tree_util.tree_map_with_path(leaf, params)


def masked_leaves(leaves: Mapping[str, Any], mask: Mapping[str, Any]) -> ChannelMask:
    """`mask` with the shifts added that `apply_channel_mask` zeroes too; checks names and shapes."""
    kept = dict(mask)
    for name, keep in mask.items():
        if name not in leaves:
            raise ValueError(
                f"The channel mask names {name!r}, which params lack; make it from batch_norm_scales(params)."
            )
        if leaves[name].shape != keep.shape:
            raise ValueError(
                f"The channel mask has shape {keep.shape} at {name!r}, but params have {leaves[name].shape} "
                "there; this mask belongs to a network of another size."
            )
        shift = _shift_name(name, leaves)
        if shift is not None:
            kept.setdefault(shift, keep)
    return kept


def mask_distance(a: PyTree[Bool[Array, "..."]], b: PyTree[Bool[Array, "..."]]) -> Float[Array, ""]:
    """Normalized Hamming distance: the share of channels in which two masks differ, in [0, 1], float32."""
    different = jax.tree.map(lambda x, y: jnp.sum(x != y, dtype=jnp.int32), a, b)
    total = sum(leaf.size for leaf in jax.tree.leaves(a))
    return sum(jax.tree.leaves(different), jnp.zeros((), jnp.int32)).astype(jnp.float32) / total


def slimming_penalty(scales: Scales, coefficient: float | Float[Array, ""]) -> Float[Array, ""]:
    """The sparsity term of network slimming (Liu et al. 2017, eq. 1): coefficient * sum |gamma|, float32.

    Its gradient at gamma = 0 is 0, so a channel that is off stays off.
    """
    # x sign(x) rather than |x|, whose gradient at 0 is 1 in JAX.
    total = sum((jnp.sum((x * jnp.sign(x)).astype(jnp.float32)) for x in jax.tree.leaves(scales)), jnp.float32(0))
    return coefficient * total


class EarlyBirdState(NamedTuple):
    """What `EarlyBird` carries through a scan.

    Attributes:
      masks: the last `lookback` masks, oldest first: the mask's structure with a leading axis `[lookback, ...]`.
      seen: number of masks so far, int32.
      distances: of the newest mask to each older one in the window, `[lookback - 1]` float32, oldest first; 1 where the
        window is not full yet.
    """

    masks: PyTree[Bool[Array, "lookback ..."]]
    seen: Int[Array, ""]
    distances: Float[Array, "lookback-1"]


@dataclasses.dataclass(frozen=True)
class EarlyBird:
    """Says when channel masks have settled (You et al. 2020, section 3.2): pure `init` and `update`, for a scan carry.

    A ticket is found once the window is full and the newest of the last `lookback` masks is closer than `threshold` to
    each of the older masks. (The published code also accepts a distance equal to the threshold.)

    Feed the detector one mask an epoch, say. Between single steps masks hardly move, so the first full window would
    count as found.

    Args:
      lookback: masks in the window, the newest included; 2 or more.
      threshold: delta, in (0, 1).

    Raises:
      ValueError: if `threshold` is outside (0, 1) or `lookback` below 2.

    >>> detector = EarlyBird()
    >>> state = detector.init(channel_mask(scales, 0.5))
    >>> state, found = detector.update(state, channel_mask(later_scales, 0.5))
    >>> int(state.seen), bool(found)
    (2, False)
    """

    lookback: int = 5
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold (delta) is {self.threshold}; a normalized mask distance needs one in (0, 1).")
        if self.lookback < 2:
            raise ValueError(f"lookback is {self.lookback}; two masks or more are needed to have a distance.")

    def init(self, mask: PyTree[Bool[Array, "..."]]) -> EarlyBirdState:
        """The state after the first mask."""
        window = jax.tree.map(lambda m: jnp.broadcast_to(m, (self.lookback, *m.shape)), mask)
        return EarlyBirdState(window, jnp.ones((), jnp.int32), jnp.ones(self.lookback - 1, jnp.float32))

    def update(self, state: EarlyBirdState, mask: PyTree[Bool[Array, "..."]]) -> tuple[EarlyBirdState, Bool[Array, ""]]:
        """Push a mask (the oldest leaves); returns the state and whether an early-bird ticket is found."""
        window = jax.tree.map(lambda w, m: jnp.concatenate([w[1:], m[None]]), state.masks, mask)
        seen = state.seen + 1
        older = jax.tree.map(lambda w: w[:-1], window)
        distances = jax.vmap(mask_distance, in_axes=(0, None))(older, mask)
        # The first slots repeat the first mask until `lookback` masks have come: their distances do not count.
        filled = jnp.arange(self.lookback - 1, dtype=jnp.int32) >= self.lookback - seen
        distances = jnp.where(filled, distances, 1.0)
        return EarlyBirdState(window, seen, distances), jnp.all(distances < self.threshold)
