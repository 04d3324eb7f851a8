"""Early birds of networks with group norm: whole norm groups go, and what is left computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.experiments import build, compacting
from lotto_jax.experiments.run import run
from lotto_jax.models import layers
from lotto_jax.objectives import averaging
from lotto_jax.objectives.state import Batch
from lotto_jax.runs.results import read as read_results
from tests import tiny

MODEL = {"name": "unet", "width": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 4}


def config(**fields):
    settings = {
        "model": MODEL,
        "objective": {"name": "flow_matching", "sample_steps": 2, "ema": 0.9},
        "dataset__train_examples": 256,
        "train__batch_size": 63,  # odd: on one device
        "parallel__tickets": "sequential",
        "checkpoint__every_seconds": 60.0,
    }
    return tiny.config(**(settings | fields))


def test_the_network_without_norm_groups_computes_what_it_does_with_them_off():
    objective = build.objective(config(), (8, 8, 1))
    image = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    batch = Batch(jnp.asarray(image), jnp.zeros(4, jnp.int32))
    rng = np.random.default_rng(1)
    state = jax.eval_shape(objective.init, jax.random.key(0))
    fill = lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape) + (x.ndim < 2), x.dtype)  # noqa: E731
    params, average = jax.tree.map(fill, (state.params, state.params))
    opt_state = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), state.opt_state)
    state = state._replace(
        params=params, model_state={averaging.COLLECTION: average}, opt_state=opt_state, key=jax.random.key(3)
    )
    norms = compacting.norm_groups(objective, batch)
    inner = {name for name in norms if name.endswith("norm_1/scale")}
    assert len(inner) == 5 and set(norms) - inner <= {"denoiser/norm/scale"}
    assert {norms[name].size for name in inner} == {2}  # 8 channels in 4 norm groups
    mask = {name: jnp.array([True, False, False, True]) for name in sorted(inner)[:3]}
    small, compacted = compacting.compact(objective, state, mask, batch, fresh=False)
    assert not compacted.left
    wide = {name: jnp.repeat(keep, 2) for name, keep in mask.items()}
    tiny.assert_same(compacted.mask, wide)

    def off(tree):  # scale and shift of the masked norm groups are zero, nothing else changes
        return pruning.apply_channel_mask(tree, wide)

    evaluate = compacting.of_any_width(objective).evaluate
    with layers.plain_lowering():
        for params, rest, small_params, small_rest in (
            (off(state.params), {}, small.params, {}),
            (state.params, {"ema": off(average)}, small.params, small.model_state),
        ):
            expected = jax.jit(objective.evaluate)(params, rest, batch, state.key)
            found = jax.jit(lambda *inputs: evaluate(*inputs))(small_params, small_rest, batch, state.key)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    moments = small.opt_state[0].mu["denoiser"]
    assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, small.params["denoiser"])


def test_early_birds_of_a_flow_are_found_cut_and_trained(tmp_path):
    settings = {"compressions": (0.5,), "interval": 1, "lookback": 2, "threshold": 0.5, "arms": ("early_bird",)}
    model = {"name": "tests.experiments.own:Grouped"}
    chosen = config(experiment="early_bird", seeds=(0,), model=model)
    chosen.early_bird.update(settings)
    run(chosen, tmp_path / "run")
    values = {(r.arm, r.metric): r.value for r in read_results(tmp_path / "run")}
    assert values["early_bird", "channels_removed"] == pytest.approx(0.5)  # two of the four norm groups
    assert values["early_bird", "weights"] == (2 + 1) * 6 + 2 * 6 + 1
    assert np.isfinite(values["early_bird", "loss"])


def test_a_network_without_scales_has_no_early_birds(tmp_path):
    model = {"name": "dit", "width": 8, "depth": 1, "heads": 2}
    chosen = config(model=model, experiment="early_bird")
    with pytest.raises(ValueError, match=r"dit \(pruned: both\) has no channels to remove"):
        run(chosen, tmp_path / "run")
