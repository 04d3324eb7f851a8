import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax.metrics import extractors, fid, metric_name
from lotto_jax.models.classifier import ResNet18
from lotto_jax.objectives import classification
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks

NETWORK = ResNet18(classes=3, width=2)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Three classes told apart by their color."""
    rng = np.random.default_rng(0)
    label = np.arange(24) % 3
    image = rng.integers(0, 80, (24, 8, 8, 3))
    image[np.arange(24), :, :, label] += 150
    return Batch(jnp.asarray(image, jnp.uint8), jnp.asarray(label))


@pytest.fixture(scope="module")
def trained(batch):
    objective = classification.make(NETWORK, optax.adam(1e-2), (8, 8, 3))
    state = jax.jit(objective.init)(jax.random.key(0))
    kernel = state.params["classifier"]["stem"]["kernel"]
    mask = masks.ones(state.params)
    mask["classifier"]["stem"]["kernel"] = jnp.arange(kernel.size).reshape(kernel.shape) % 4 > 0
    step = jax.jit(objective.step)
    history = []
    for _ in range(25):
        state, metrics = step(state, mask, batch, state.key)
        history.append(jax.device_get(metrics))
    return objective, state, mask, history


def test_training_lowers_the_loss_and_keeps_the_mask(trained, batch):
    _, state, mask, history = trained
    assert history[0]["loss"] == pytest.approx(np.log(3), abs=1.5)
    assert history[-1]["loss"] < 0.3 * history[0]["loss"] and history[-1]["accuracy"] > 0.9
    assert int(state.step) == 25
    pruned = ~np.asarray(mask["classifier"]["stem"]["kernel"])
    assert pruned.any() and not np.asarray(state.params["classifier"]["stem"]["kernel"])[pruned].any()


def test_evaluation_is_cross_entropy_and_share_of_hits(trained, batch):
    objective, state, _, _ = trained
    variables = {"params": state.params, **state.model_state}
    logits = jax.jit(NETWORK.apply, static_argnames="train")(
        variables, batch.image.astype(jnp.float32) / 255, train=False
    )
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    label = np.asarray(batch.label)
    found = jax.jit(objective.evaluate)(state.params, state.model_state, batch, state.key)
    assert found["loss"] == pytest.approx(-np.mean(np.log(p[np.arange(24), label])), rel=1e-4)
    assert found["accuracy"] == pytest.approx(np.mean(np.argmax(p, axis=1) == label))
    assert objective.components == tuple(state.params)


def test_its_features_measure_distances_under_their_own_name(trained, batch, tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path))
    _, state, _, _ = trained
    extractor = extractors.resnet18(NETWORK, state.params, state.model_state)
    assert metric_name(extractor) == "fd_resnet18"
    images = np.asarray(batch.image)
    assert fid(images, images, extractor) == pytest.approx(0.0, abs=1e-4)
    assert fid(images, images[:, :, :, ::-1], extractor) > 0.01
    other = jax.tree.map(lambda p: p * 1.01, state.params)
    assert extractors.resnet18(NETWORK, other, state.model_state).identifier != extractor.identifier


def test_attributes_are_told_one_by_one():
    """Two attributes: bright in red, bright in green; each is right or wrong by itself."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, (32, 2))
    image = rng.integers(0, 80, (32, 8, 8, 3))
    image[..., :2] += 150 * label[:, None, None, :]
    batch = Batch(jnp.asarray(image, jnp.uint8), jnp.asarray(label, jnp.int32))
    objective = classification.make(ResNet18(classes=2, width=2), optax.adam(1e-2), (8, 8, 3))
    state = jax.jit(objective.init)(jax.random.key(0))
    step, mask = jax.jit(objective.step), masks.ones(state.params)
    history = []
    for _ in range(25):
        state, metrics = step(state, mask, batch, state.key)
        history.append(jax.device_get(metrics))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and history[-1]["accuracy"] > 0.9
    logits = np.array([[2.0, -1.0], [3.0, 1.0]])
    np.testing.assert_allclose(classification.hits(logits, np.array([[1, 0], [0, 1]])), [1.0, 0.5])


def test_augmentation_moves_and_mirrors_images_and_is_a_function_of_the_key():
    image = jnp.asarray(np.random.default_rng(2).integers(1, 255, (64, 6, 5, 1)), jnp.uint8)
    key = jax.random.key(3)
    same = classification.augment(image, key, flip=False, shift=0)
    np.testing.assert_array_equal(same, image)
    mirrored = np.asarray(classification.augment(image, key, flip=True, shift=0))
    chosen = np.array([not np.array_equal(a, b) for a, b in zip(mirrored, image, strict=True)])
    assert 16 < chosen.sum() < 48
    np.testing.assert_array_equal(mirrored[chosen], np.asarray(image)[chosen][:, :, ::-1])
    moved = np.asarray(classification.augment(image, key, flip=False, shift=1))
    np.testing.assert_array_equal(moved, classification.augment(image, key, flip=False, shift=1))
    around = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = []
    for found, whole in zip(moved, around, strict=True):
        fits = [(i, j) for i in range(3) for j in range(3) if np.array_equal(found, whole[i : i + 6, j : j + 5])]
        assert fits
        corners += fits
    assert set(corners) == {(i, j) for i in range(3) for j in range(3)}
