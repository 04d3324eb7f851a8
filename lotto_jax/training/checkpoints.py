"""Numbered Orbax checkpoints: asynchronous, checksummed, and read newest first past damaged ones."""

import contextlib
import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import lax
from jaxtyping import Array, PyTree, UInt32

from lotto_jax.pruning.masks import path_name
from lotto_jax.training import hosts

PATIENCE_SECONDS = 7 * 86_400  # with a save: Orbax counts by a clock that may be set while it waits

_saving: "list[Store]" = []  # the one whose save may still be under way


class StorageError(Exception):
    """A checkpoint could not be written or read."""


def _words(leaf: Array) -> UInt32[Array, "n"]:
    """The bits of an array as unsigned integers, one an entry."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.reshape(-1).astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    return lax.bitcast_convert_type(leaf, unsigned).reshape(-1).astype(jnp.uint32)


@jax.jit
def checksum(tree: PyTree) -> UInt32[Array, ""]:
    """A position-dependent sum of all bits, which Orbax does not keep: any changed entry changes it.

    Computed on the devices in integers, so it does not depend on how the arrays are sharded. Leaves count in the order
    of their names: a named tuple comes back as a dict where a state is read as it was stored.
    """
    total = jnp.uint32(0)
    for _, leaf in sorted(
        ((path_name(p), x) for p, x in jax.tree_util.tree_leaves_with_path(tree)), key=lambda x: x[0]
    ):
        words = _words(leaf)
        total = total * jnp.uint32(31) + jnp.sum(words * (2 * lax.iota(jnp.uint32, words.size) + 1), dtype=jnp.uint32)
    return total


class Store:
    """Checkpoints of pytrees in one directory, numbered by the caller.

    A save returns once the arrays are copied; it counts only when committed, which is what `steps` lists. Several
    processes of a run call `save`, `delete` and `restore` with `like` together; what else reads, each may call alone.
    """

    def __init__(self, directory: Path, keep: int | None = None, alone: bool = False):
        """Open `directory`, creating it; `keep` newest checkpoints stay (None: all).

        With `alone` the directory is there, and this process only reads, whatever others do.
        """
        self.directory = directory
        self._by_itself = ocp.options.MultiprocessingOptions(jax.process_index(), {jax.process_index()})
        reading = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=self._by_itself)
        patient = ocp.options.AsyncOptions(timeout_secs=PATIENCE_SECONDS)
        # Else processes that save the same step in two stores at once take one store for the other.
        named = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=directory.name)
        writing = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, async_options=patient, multiprocessing_options=named
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=reading if alone else writing)
        self._reader = self._manager if alone else ocp.CheckpointManager(directory.absolute(), options=reading)

    def save(self, step: int, state: PyTree, meta: dict[str, Any], wait: bool = False) -> None:
        """Save `state` and the JSON object `meta` as number `step`, replacing it if it exists.

        Stores take turns: Orbax numbers saves of a process, and threads of one that is under way may take the number
        of the next.

        Raises:
          StorageError: if this or an earlier asynchronous save failed.
        """
        for other in _saving:
            if other is not self:
                other.wait()
        _saving[:] = [self]
        with self._writing():
            if step in self._manager.all_steps():
                self._manager.wait_until_finished()
                self._manager.delete(step)
            arguments = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                meta=ocp.args.JsonSave({**meta, "checksum": int(checksum(state)), "meta_checksum": _of_json(meta)}),
            )
            self._manager.save(step, args=arguments, force=True)
            if wait:
                self._manager.wait_until_finished()

    def wait(self) -> None:
        """Until the last save is committed.

        Raises:
          StorageError: if it failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Failures to write in here, also of an earlier asynchronous save, become one sentence."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise StorageError(
                f"Could not write a checkpoint to {self.directory} ({_first_line(error)}); the earlier ones are "
                "intact. Make room there and run the same command again."
            ) from error

    def steps(self) -> list[int]:
        """Numbers of the committed checkpoints, ascending.

        Raises:
          StorageError: if an earlier asynchronous save failed.
        """
        self.wait()
        return sorted(self._manager.all_steps())

    def delete(self, step: int) -> None:
        """Delete one checkpoint; raises as `steps`."""
        with self._writing():
            self._manager.delete(step)

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON object saved with a checkpoint.

        Raises:
          StorageError: if it is damaged.
        """
        try:
            meta = self._reader.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        except Exception as error:  # Orbax and TensorStore raise bare Exception too
            raise StorageError(f"Checkpoint {step} in {self.directory} cannot be read: {_first_line(error)}") from error
        own = {name: value for name, value in meta.items() if name not in ("checksum", "meta_checksum")}
        if meta.get("meta_checksum", _of_json(own)) != _of_json(own):  # checkpoints of earlier versions have none
            raise StorageError(
                f"Checkpoint {step} in {self.directory} is damaged: the checksum of its metadata differs."
            )
        return meta

    def _stored_shapes(self, step: int) -> PyTree:
        """What `restore` needs to read a state as it was stored, onto the first device of this process."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with ocp.StandardCheckpointer(multiprocessing_options=self._by_itself) as reader:
            stored = reader.metadata(self.directory.absolute() / str(step) / "state").item_metadata.tree
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            stored,
            is_leaf=lambda x: "shape" in dir(x),
        )

    def restore(self, step: int, like: PyTree | None = None) -> PyTree:
        """The state saved as `step`, with the structure, shapes, dtypes and shardings of `like`.

        Without `like` it comes as it was stored (dicts, lists and arrays), onto the first device of this process.

        Raises:
          StorageError: if it is damaged, or is the state of something else.
        """
        if like is None:
            return self._verified(step, self._read(step, None))
        state, failure = None, ""
        try:
            state = self._read(step, like)
        except StorageError as error:
            failure = str(error)
        if failures := [other for other in hosts.everyones(failure) if other]:  # each has read its own part
            raise StorageError(failures[0])
        return self._verified(step, state)

    def _read(self, step: int, like: PyTree | None) -> PyTree:
        try:
            like = self._stored_shapes(step) if like is None else like
            return self._reader.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))).state
        except Exception as error:  # as above
            raise StorageError(f"Checkpoint {step} in {self.directory} cannot be read: {_first_line(error)}") from error

    def _verified(self, step: int, state: PyTree) -> PyTree:
        if int(checksum(state)) != self.meta(step).get("checksum"):
            raise StorageError(f"Checkpoint {step} in {self.directory} is damaged: its checksum does not match.")
        return state

    def restore_newest(self, first: int, last: int, like: PyTree) -> tuple[int, PyTree] | None:
        """The newest readable checkpoint numbered `first` to `last`, passing damaged ones with a warning.

        Returns its number and state, or None.

        Args:
          first, last: inclusive bounds.
          like: what `restore` needs.
        """
        for step in reversed([s for s in self.steps() if first <= s <= last]):
            try:
                return step, self.restore(step, like)
            except StorageError as error:
                warnings.warn(f"{error} Going back to the one before.", stacklevel=2)
        return None

    def close(self) -> None:
        """Wait for pending saves and stop the background threads; raises as `steps`."""
        if self in _saving:
            _saving.remove(self)
        with self._writing():
            self._manager.close()
        self._reader.close()


def _of_json(meta: dict[str, Any]) -> int:
    """Checksum of a JSON object."""
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def like(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Shapes and dtypes of `tree` (arrays or abstract) under `sharding`, for `Store.restore`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
