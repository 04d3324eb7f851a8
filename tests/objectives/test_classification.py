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
