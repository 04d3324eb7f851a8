"""Random streams: every random number of a run comes from a ticket's key by way of a named stream and its indices.

All tickets of one seed have the same key, and so see the same batches and the same noise. (Denoising networks are
evaluated with one noise for all seeds, see `objectives.denoising`.) The stream is folded into the
key first, then its indices one after the other, so that no two streams share a key whatever their indices are.
"""

import enum

import jax
from jaxtyping import Array, Int, Key


class Stream(enum.IntEnum):
    """What a random number is for; the comments name the indices."""

    INITIALIZATION = 0  # salt: 0 for the dense networks, one for every choice of components in a round
    ORDER = 1  # epoch: the order of the examples
    NOISE = 2  # step: latent vectors, samples of the posterior, augmentation
    EVALUATION = 3  # batch of the held-out split
    SHUFFLE = 4  # salt: random masks
    SAMPLES = 5  # batch: of the samples and reconstructions that metrics look at
    SCORES = 6  # none: noise in the losses that masks at initialization are scored by
    PICTURES = 7  # none: latent vectors of the image grids
    SIBLINGS = 8  # number of the copy: the key of a ticket that sees other batches and noise


def key(ticket: Key[Array, ""], stream: Stream, *indices: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of a stream at its indices.

    Args:
      ticket: the ticket's typed key.
      stream: what for.
      *indices: from 0 to 2**32 - 1; may be traced.
    """
    folded = jax.random.fold_in(ticket, int(stream))
    for index in indices:
        folded = jax.random.fold_in(folded, index)
    return folded
