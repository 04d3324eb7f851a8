"""Every file of configs/ loads, is valid, and builds its objective."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from lotto_jax import config as configuration
from lotto_jax import experiments
from lotto_jax.cli import load_config
from lotto_jax.data.dataset import zeros
from lotto_jax.data.sources import Dataset, Split
from lotto_jax.experiments import build, measure, sweep
from lotto_jax.training.feed import Feed
from tests import tiny

FILES = [p for p in sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.py")) if p.stem != "common"]


RULES = ("cpu_lamp", "cpu_layerwise")
GP = ("", "cpu", "gp", *RULES)
VARIANTS = {name: ("", "cpu", "rewind0") for name in ("dcgan_cifar10", "linear_ae_mnist")}
VARIANTS |= {"conv_ae_cifar10": ("", "cpu", *RULES)}
VARIANTS |= {"ablation_linear_ae_mnist": ("", "none,sigmoid,flax,3e-4,1000,10", "relu,none,pytorch,1e-3,10,30")}
VARIANTS |= {name: ("", "cpu", "early_bird") for name in ("ddpm_cifar10", "ddpm_mnist")}
VARIANTS |= {"flow_mixture": ("", "diffusion", "epsilon"), "transfer_flow_mixture": ("", "diffusion")}
VARIANTS |= {"flow_digits": ("", "diffusion", "early_bird")}
VARIANTS |= {"quickstart": ("",), "wgan_cifar10": GP, "wgan_celeba": GP}
CASES = [(path, variant) for path in FILES for variant in VARIANTS.get(path.stem, ("", "cpu"))]
SHAPES = {
    "digits": (8, 8, 1),
    "mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "celeb_a": (32, 32, 3),
    "mixture": (1, 1, 2),
}


@pytest.mark.parametrize(("path", "variant"), CASES, ids=lambda case: getattr(case, "stem", case))
def test_a_configuration_file_is_complete_and_valid(path, variant):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*[variant] if variant else [])
    configuration.validate(config)
    assert config.is_locked
    objective = build.objective(config, SHAPES[config.dataset.name], 10)
    measure.check(config, objective)
    count = config.dataset.train_examples or 50_000
    split = Split(zeros((count, *SHAPES[config.dataset.name]), np.uint8), np.zeros(count, np.int32))
    data = Dataset(config.dataset.name, "1.0.0", split, split, split, ("plane",), False)
    for part in [config, *experiments.parts_of(config)]:
        feed = Feed(data, config.train.batch_size, config.train.epochs, config.evaluation.split)
        if config.experiment == "transfer":  # all that is missing is another run
            with pytest.raises(ValueError, match=r"config.transfer.source is empty"):
                experiments.of(part).check(part, objective, feed)
        else:
            experiments.of(part).check(part, objective, feed)
    assert path.stem in (path.parent / "README.md").read_text()


def test_the_sweep_of_table_1_lists_all_its_networks():
    listed = sweep.read(FILES[0].parent / "table1.txt")
    others = {
        "ablation_linear_ae_mnist",
        "quickstart",
        "table2_dcgan_cifar10",
        "transfer_vae_to_dcgan_cifar10",
        "transfer_dcgan_to_vae_cifar10",
    }
    kinds = ("resnet18", "ddpm", "flow", "dit", "transfer_flow")
    others |= {path.stem for path in FILES if path.stem.startswith(kinds)}
    assert sorted(listed) == sorted(path.stem for path in FILES if path.stem not in others)


def test_the_ablation_grid_is_each_factor_alone_and_the_cross_at_ten_epochs():
    grid = importlib.import_module("configs.ablation_linear_ae_mnist")
    cells, sizes = grid.cells(), [len(values) for values in grid.FACTORS.values()]
    differing = [sum(x != y for x, y in zip(cell, grid.BASE, strict=True)) for cell in cells]
    assert len(set(cells)) == len(cells) == 65
    assert differing[0] == 0 and differing[1:9] == [1] * 8 and min(differing[9:]) == 2  # the rule, in its order
    assert sum(n - 1 for n in sizes) == 8 and len([cell for cell in cells if cell[-1] == 10]) == np.prod(sizes[:-1])
    row, base = importlib.import_module("configs.linear_ae_mnist").get_config(), grid.get_config()
    own = ("activation", "output", "initialization")
    assert {field: base.model[field] for field in own} == {
        field: getattr(build.NETWORKS["linear_autoencoder"].parts[0], field) for field in own
    }
    for section in ("dataset", "optimizer", "train", "seeds", "precision", "matmul_precision"):
        assert configuration.as_dict(base)[section] == configuration.as_dict(row)[section]
    assert base.imp.rewind_step == row.imp.rewind_step == 10


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_a_bare_name_is_one_of_the_projects_own_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("dcgan_cifar10:cpu", []) == load_config(f"{FILES[0].parent / 'dcgan_cifar10.py'}:cpu", [])
    with pytest.raises(ValueError, match=r"no configuration file 'dcgan_cifar100'; did you mean dcgan_ci"):
        load_config("dcgan_cifar100", [])


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="no variant 'gpu'; it takes cpu"):
        load_config(f"{FILES[0].parent / 'conv_ae_celeba.py'}:gpu", [])


def test_an_unknown_field_is_an_error_in_a_file_and_in_a_foreign_configuration():
    config = tiny.config()
    with pytest.raises(AttributeError, match="epoch"):
        config.train.epoch = 3
    with config.unlocked():
        config.train.epoch = 3
    with pytest.raises(ValueError, match=r"config.train.epoch is not a field"):
        configuration.validate(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seeds", (), "seeds"),
        ("seeds", (1, 1), "seeds"),
        ("seeds", (-1,), "seeds"),
        ("train__epochs", 0, "config.train.epochs is 0; it must be at least 1"),
        ("evaluation__split", "tset", "takes one of test, validation"),
        ("checkpoint__keep_states", "none", "takes one of all, last"),
    ],
)
def test_a_value_out_of_range_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        configuration.validate(tiny.config(**{field: value}))


def test_a_missing_field_is_named():
    config = tiny.config()
    with config.unlocked():
        del config.train["epochs"]
    with pytest.raises(ValueError, match=r"config.train.epochs is missing"):
        configuration.validate(config)


def test_the_digest_changes_with_what_is_computed_and_not_with_where_the_data_lie():
    base = configuration.digest(tiny.config())
    assert configuration.digest(tiny.config(dataset__data_dir="/elsewhere")) == base
    assert configuration.digest(tiny.config(imp__rounds=3)) != base
