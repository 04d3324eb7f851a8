"""8-bit export of a compacted network: smaller files, the same classes, and a program that runs without Qwix."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from lotto_jax import export, pruning

RUN = """
import sys
sys.modules["qwix"] = sys.modules["lotto_jax"] = None
import jax, numpy as np
from safetensors.numpy import load_file
program = jax.export.deserialize(bytearray(open(sys.argv[1] + "/network.jax", "rb").read()))
weights = load_file(sys.argv[1] + "/weights.safetensors")
np.save(sys.argv[1] + "/logits.npy", program.call(weights, np.load(sys.argv[2])))
"""


def network(params, x):
    return jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None]) @ params["out"]["kernel"]


@pytest.fixture(scope="module")
def trained():
    """A classifier of digits with half of its hidden units cut out, its images and labels."""
    images, labels = load_digits(return_X_y=True)
    images, first, second = jnp.asarray(images / 16, jnp.float32), *jax.random.split(jax.random.key(0))
    params = {
        "hidden": {"kernel": 0.1 * jax.random.normal(first, (64, 128)), "bias": jnp.zeros(128)},
        "out": {"kernel": 0.1 * jax.random.normal(second, (128, 10))},
    }
    tx = optax.adam(1e-2)

    @jax.jit
    def train(params):
        def step(_, carry):
            params, state = carry
            loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(network(p, images), labels).mean()  # noqa: E731
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 100, step, (params, tx.init(params)))[0]

    params = train(params)
    groups = pruning.axis_groups(network, params, images)
    small = pruning.compact(network, params, pruning.channel_mask(pruning.channel_scores(groups, params), 0.5), images)
    assert small.variables["hidden"]["kernel"].shape == (64, 64)
    return train(small.variables), images, labels


def test_files_are_a_quarter_and_classes_the_same(trained, tmp_path):
    params, images, labels = trained
    function, rounded = export.int8(network, params)
    export.save(tmp_path / "float", network, params, images)
    export.save(tmp_path / "int8", function, rounded, images)
    sizes = [(tmp_path / name / export.WEIGHTS).stat().st_size for name in ("float", "int8")]
    assert sizes[1] < 0.35 * sizes[0]  # with scales, biases and names
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", RUN, tmp_path / "int8", tmp_path / "images.npy"], check=True)
    classes = np.load(tmp_path / "int8" / "logits.npy").argmax(-1)
    before = np.mean(np.asarray(network(params, images)).argmax(-1) == np.asarray(labels))
    assert before > 0.95 and np.mean(classes == np.asarray(labels)) > before - 0.01


def test_kernels_are_off_by_half_a_step_of_their_channel_and_zeros_stay(trained):
    params, _, _ = trained
    params = pruning.apply(params, pruning.global_prune(pruning.magnitude(params), pruning.ones(params), 0.3))
    _, rounded = export.int8(network, params)
    for name in ("hidden", "out"):
        kernel, found = np.asarray(params[name]["kernel"], np.float64), rounded[name]["kernel"]
        steps = np.abs(kernel).max(0) / 127
        assert found.qvalue.dtype == np.int8 and found.scale.shape == (1, kernel.shape[1])
        back = np.asarray(found.qvalue, np.float64) * np.asarray(found.scale, np.float64)
        assert np.all(np.abs(back - kernel) <= 0.501 * steps) and np.all(back[kernel == 0] == 0)
    np.testing.assert_array_equal(rounded["hidden"]["bias"], params["hidden"]["bias"])
