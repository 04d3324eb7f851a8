"""Networks exported for other programs: run in a process that knows only JAX, and in PyTorch's layouts."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import export
from lotto_jax.models import dcgan

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "export.md").read_text()
ONLY_JAX = "import sys; sys.modules['lotto_jax'] = sys.modules['safetensors'] = sys.modules['flax'] = None\n"


@pytest.fixture(scope="module")
def network():
    model = dcgan.Discriminator(width=2)
    images = jax.random.normal(jax.random.key(1), (3, 32, 32, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)
    return functools.partial(model.apply, train=False), variables, images


def test_the_programs_of_the_docs_export_a_compacted_network_and_run_it_with_jax_alone(tmp_path):
    exporting, running = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for program in (exporting, ONLY_JAX + running):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "(4,)\n"
    names = {path.name for path in (tmp_path / "network").iterdir()}
    assert names == {"network.jax", "weights.safetensors"}


def test_an_exported_program_computes_what_the_network_computes(network, tmp_path):
    apply, variables, images = network
    export.save(tmp_path, apply, variables, images)
    program = jax.export.deserialize((tmp_path / export.PROGRAM).read_bytes())
    found = program.call(export.named(variables), images)
    np.testing.assert_allclose(found, apply(variables, images), rtol=1e-5, atol=1e-6)


def test_a_program_for_several_platforms_takes_batches_of_any_size(network, tmp_path):
    apply, variables, images = network
    (batch,) = jax.export.symbolic_shape("batch")
    export.save(
        tmp_path,
        apply,
        variables,
        jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32),
        on=("cpu", "cuda", "tpu"),
    )
    program = jax.export.deserialize((tmp_path / export.PROGRAM).read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")
    expected = apply(variables, images)
    np.testing.assert_allclose(program.call(export.named(variables), images[:2]), expected[:2], rtol=1e-5, atol=1e-5)


def test_leaves_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Two leaves are called 'a/b'"):
        export.save(tmp_path, lambda v: v["a/b"], {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}})


def test_kernels_take_the_layouts_of_pytorch():
    dense, conv = np.arange(6.0).reshape(2, 3), np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    variables = {
        "params": {"dense": {"kernel": dense}, "conv": {"kernel": conv, "bias": np.ones(5)}, "up": {"kernel": conv}},
        "batch_stats": {"norm": {"mean": np.zeros(5), "var": np.ones(5)}},
    }
    found = export.torch_state_dict(variables, transposed=lambda layer: layer == "up")
    assert found["dense.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["conv.weight"][4, 1, 0, 2] == conv[0, 2, 1, 4] and found["conv.weight"].shape == (5, 4, 2, 3)
    assert found["up.weight"][1, 4, 0, 2] == conv[1, 0, 1, 4] and found["up.weight"].shape == (4, 5, 2, 3)
    norm = {name for name in found if name.startswith("norm")}
    assert norm == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    with pytest.raises(ValueError, match=r"kernel of 'a/b' has 3 dimensions"):
        export.torch_state_dict({"params": {"a": {"b": {"kernel": np.ones((1, 2, 3))}}}})
