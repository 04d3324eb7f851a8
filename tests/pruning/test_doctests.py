"""Every `>>>` example in a docstring of the package runs and prints what it says."""

import doctest
import importlib
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lotto_jax
from lotto_jax import pruning

PACKAGE = Path(lotto_jax.__file__).parent
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
MODULES = {
    ".".join(("lotto_jax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): count
    for path in sorted(PACKAGE.rglob("*.py"))
    if (count := len(EXAMPLE.findall(path.read_text())))
}


class Model(nn.Module):
    """What examples call `model`: a convolution of 8 channels, batch norm, and a dense layer of 3."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def ready() -> dict:
    """The names that examples may use without making them; names of the example's own module go before these."""
    model, images = Model(), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = model.init(jax.random.key(1), images)
    variables["params"]["norm"]["scale"] = jnp.linspace(0.1, 0.8, 8)
    params = variables["params"]
    scales = pruning.batch_norm_scales(params)

    def loss(params, batch):
        return jnp.mean(model.apply({**variables, "params": params}, batch) ** 2)

    return {
        **{name: getattr(pruning, name) for name in pruning.__all__},
        **{"jax": jax, "jnp": jnp, "np": np, "optax": optax, "pruning": pruning},
        **{"model": model, "variables": variables, "params": params, "images": images},
        **{"loss": loss, "batch": images, "batches": jnp.stack([images, 2 * images])},
        **{"scales": scales, "later_scales": jax.tree.map(lambda x: x[::-1], scales)},
        **{"train": pruning.apply, "opt_state": optax.adam(1e-3).init(params), "key": jax.random.key(2)},
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name):
    module = importlib.import_module(name)
    names = {**ready(), **vars(module)}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in doctest.DocTestFinder().find(module, globs=names):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries == MODULES[name], "an example lies outside of the docstrings that doctest reads"


def test_the_modules_of_pruning_have_examples():
    with_examples = {name.rpartition(".")[2] for name in MODULES if name.startswith("lotto_jax.pruning.")}
    assert with_examples >= {"channels", "compaction", "dependency", "masks", "prune", "saliency"}
