"""Checkpoints: exact, and never silently wrong."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

from lotto_jax.objectives.state import TrainState
from lotto_jax.training import checkpoints
from lotto_jax.training.checkpoints import StorageError, Store


def state(seed=0):
    key = jax.random.key(seed)
    return {
        "params": {"kernel": jax.random.normal(key, (300, 50)), "half": jnp.ones((3,), jnp.bfloat16)},
        "mask": jax.random.bernoulli(key, 0.5, (4, 7)),
        "step": jnp.int32(7),
        "key": jax.random.split(key, 3),
    }


def like():
    return checkpoints.like(jax.eval_shape(state), SingleDeviceSharding(jax.devices()[0]))


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store", keep=3)
    yield opened
    opened.close()


def largest_file(store, step):
    return max((p for p in (store.directory / str(step)).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_state_with_keys_masks_and_scalars_comes_back_bit_for_bit(store):
    store.save(5, state(), {"phase": 2}, wait=True)
    restored = store.restore(5, like())
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state()), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert store.meta(5)["phase"] == 2


def test_a_named_tuple_with_keys_is_read_as_it_was_stored_too(store):
    """As exports and the check at every start do, which know no networks: leaves come in another order then."""
    kept = TrainState(
        {"b": jnp.arange(3.0)}, {"a": jnp.ones(2)}, (optax.EmptyState(),), jnp.int32(4), jax.random.key(7)
    )
    store.save(1, kept, {}, wait=True)
    found = store.restore(1)
    np.testing.assert_array_equal(found["params"]["b"], kept.params["b"])
    assert int(found["step"]) == 4


def test_saving_a_number_again_replaces_it(store):
    store.save(5, state(0), {}, wait=True)
    store.save(5, state(1), {}, wait=True)
    np.testing.assert_array_equal(store.restore(5, like())["params"]["kernel"], state(1)["params"]["kernel"])


def damage_by_flipping(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def damage_by_truncating(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [damage_by_flipping, damage_by_truncating, Path.unlink])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(store, damage):
    for step in (1, 2):
        store.save(step, state(step), {}, wait=True)
    damage(largest_file(store, 2))
    with pytest.warns(UserWarning, match="Going back to the one before"):
        step, restored = store.restore_newest(0, 9, like())
    assert step == 1
    np.testing.assert_array_equal(restored["params"]["kernel"], state(1)["params"]["kernel"])


def test_a_changed_digit_of_the_metadata_is_noticed(store):
    store.save(1, state(), {"seconds": 0.25}, wait=True)
    file = store.directory / "1" / "meta" / "metadata"
    file.write_text(file.read_text().replace("0.25", "0.75"))
    for read in (store.meta, store.restore):
        with pytest.raises(StorageError, match=r"Checkpoint 1 in .* is damaged"):
            read(1)


def test_a_foreign_checkpoint_is_refused(store):
    store.save(1, {"something": jnp.ones(3)}, {}, wait=True)
    with pytest.raises(StorageError, match="cannot be read"):
        store.restore(1, like())


def test_a_half_written_checkpoint_does_not_count(store):
    store.save(1, state(), {}, wait=True)
    shutil.copytree(store.directory / "1", store.directory / "2.orbax-checkpoint-tmp-1")
    store.close()
    again = Store(store.directory)
    assert again.steps() == [1]
    again.close()


def test_bounds_choose_among_checkpoints(store):
    for step in (3, 4, 5):
        store.save(step, state(step), {}, wait=True)
    assert store.restore_newest(0, 4, like())[0] == 4
    assert store.restore_newest(6, 9, like()) is None


def test_a_full_disk_is_one_sentence_and_keeps_the_earlier_checkpoint(tmp_path):
    """A real failed write: the process may not write files larger than 20 kB."""
    script = f"""
import resource, signal, jax.numpy as jnp, jax
from pathlib import Path
from lotto_jax.training.checkpoints import Store, StorageError
store = Store(Path({str(tmp_path / "store")!r}))
store.save(1, {{"x": jnp.zeros(10)}}, {{}}, wait=True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    store.save(2, {{"x": jax.random.normal(jax.random.key(0), (100_000,))}}, {{}}, wait=True)
except StorageError as error:
    print("refused:", error)
print(store.steps())
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "refused: Could not write a checkpoint" in result.stdout, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "[1]"


def test_the_checksum_sees_any_single_change():
    base = state()
    reference = int(checkpoints.checksum(base))
    for change in (
        lambda s: s["params"].update(kernel=s["params"]["kernel"].at[299, 49].add(1e-3)),
        lambda s: s.update(mask=s["mask"].at[0, 0].set(~s["mask"][0, 0])),
        lambda s: s.update(step=jnp.int32(8)),
        lambda s: s.update(key=s["key"][::-1]),
        lambda s: s["params"].update(
            kernel=s["params"]["kernel"].at[jnp.array([0, 1])].set(s["params"]["kernel"][jnp.array([1, 0])])
        ),
    ):
        changed = {**base, "params": dict(base["params"])}
        change(changed)
        assert int(checkpoints.checksum(changed)) != reference
