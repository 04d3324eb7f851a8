"""Early-bird tickets of a small DCGAN and autoencoder on digits of 8x8."""

import contextlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import tickets
from lotto_jax.data import sources
from lotto_jax.experiments import EXPERIMENTS, build, compacting, costs
from lotto_jax.experiments.early_bird import EarlyBirds
from lotto_jax.experiments.early_bird_search import Origin
from lotto_jax.experiments.early_bird_ticket import cut as cut_ticket
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import feed_of, run
from lotto_jax.experiments.runner import Run
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import apply, apply_channel_mask, channels, path_name
from lotto_jax.runs import provenance
from lotto_jax.runs import tickets as stored_tickets
from lotto_jax.runs.curves import read as read_log
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.results import read as read_results
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training.preemption import Preempted, Preemption
from tests import tiny


def config(**fields):
    """Sixteen steps, a mask every second; three masks closer than 0.5 are soon there."""
    settings = {
        "model": {"name": "dcgan", "width": 4},
        "objective": {"name": "adversarial", "loss": "bce", "latent": 5},
        "optimizer": {"name": "adam", "learning_rate": 2e-3, "b1": 0.5},
        "early_bird__arms": ("dense", "early_bird", "early_bird_mixed"),
        "early_bird__mixed_precision": "float16",
        "parallel__tickets": "sequential",
        "early_bird__interval": 2,
        "early_bird__lookback": 3,
        "early_bird__threshold": 0.5,
    } | fields
    return tiny.config(
        experiment="early_bird",
        seeds=(0,),
        dataset__train_examples=128,
        train__batch_size=31,  # odd: on one device, where tiny things compile fastest
        train__epochs=4,
        **settings,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("early_bird") / "run"
    run(config(), path)
    return path


def table(path, arm):
    return {r.metric: r.value for r in read_results(path) if r.arm == arm}


def test_the_ticket_is_found_smaller_and_cheaper(done):
    dense, *tickets = (table(done, arm) for arm in config().early_bird.arms)
    for ticket in tickets:
        assert ticket["found_step"] == 6
        assert dense["weights"] / 4 < ticket["weights"] < dense["weights"] / 2  # one axis or both lose half
        assert ticket["training_seconds"] > 0 and np.isfinite(list(ticket.values())).all()
        # Ten of sixteen steps at less than half the cost.
        assert 6 / 16 * dense["flops"] < ticket["flops"] < 11 / 16 * dense["flops"]
        assert ticket.keys() - dense.keys() == {"channels_removed", "found_step"}
        assert ticket["channels_removed"] == pytest.approx(0.5, abs=0.02)
        assert 0 < ticket["step_memory_mib"] < dense["step_memory_mib"]
    assert tickets[0]["flops"] < tickets[1]["flops"] < 1.1 * tickets[0]["flops"]  # gradients are unscaled too
    assert tickets[0]["discriminator_loss"] == pytest.approx(tickets[1]["discriminator_loss"], rel=0.1)
    assert tickets[0]["discriminator_loss"] != tickets[1]["discriminator_loss"]
    distances = {p["step"]: p["mask_distance_0.5"] for p in read_log(done) if p["arm"] == "dense"}
    assert len(distances) == 16 and distances[5] == 1 and distances[6] < 0.5
    assert {r.sparsity for r in read_results(done) if r.arm != "dense"} == {0.5}
    assert list(provenance.read(done)) == list(dict.fromkeys(r.metric for r in read_results(done)))


def test_running_again_changes_nothing_and_the_report_draws_the_search(done):
    files = [done / name for name in ("results.csv", "metrics.jsonl", "channel_masks.safetensors")]
    before = [file.read_bytes() for file in files]
    run(config(), done)
    assert [file.read_bytes() for file in files] == before
    text = write(done)
    assert "mask_distances.png" in text and "unfinished" not in text and "found_step" in text


def cut(done, settings):
    """The first ticket of a finished search, as other settings cut it."""
    with contextlib.ExitStack() as closing:
        directory = closing.enter_context(contextlib.closing(RunDirectory(done, config())))
        dataset = sources.load(**settings.dataset)
        feed = feed_of(settings, dataset)
        objective = build.objective(settings, dataset.image_shape, steps=feed.steps)
        own = Run(settings, EXPERIMENTS["early_bird"], objective, feed, directory, Preemption())
        closing.enter_context(contextlib.closing(own))
        birds = EarlyBirds(own)
        return cut_ticket(birds, Ticket("both", 1, "early_bird", 0, 0.5, "channels"), Origin(6, True))


@pytest.mark.parametrize(("round_to", "multiple"), [(1, 1), (4, 4)])
def test_emulated_float8_keeps_no_channel_from_going_and_widths_are_rounded(done, round_to, multiple):
    """Its scales are maxima of whole kernels, which the walk must not see."""
    settings = config(precision="float8", early_bird__round_to=round_to)
    dense, small, compacted = cut(done, settings)
    assert costs.num_weights(small.params) < costs.num_weights(dense.params)
    assert all(int(keep.sum()) % multiple == 0 for keep in compacted.mask.values())


@pytest.mark.parametrize("optimizer", ["carried", "fresh"])
def test_the_compacted_start_computes_what_the_masked_network_computes(done, optimizer):
    settings = config(early_bird__optimizer=optimizer)
    dense, small, compacted = cut(done, settings)
    dataset = sources.load(**settings.dataset)
    assert not compacted.left
    kept = sum(int(keep.sum()) for keep in compacted.mask.values())
    assert kept == round(0.5 * sum(keep.size for keep in compacted.mask.values()))
    objective = build.objective(settings, dataset.image_shape)
    batch = Batch(*(jnp.asarray(x[:20]) for x in dataset.test))
    masked = jax.jit(objective.evaluate)(
        apply_channel_mask(dense.params, compacted.mask), dense.model_state, batch, dense.key
    )
    evaluate = jax.jit(compacting.of_any_width(objective).evaluate)
    found = evaluate(small.params, small.model_state, batch, small.key)
    for name, value in masked.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
    adam = small.opt_state["generator"].inner_state[0]
    assert jax.tree.map(jnp.shape, adam.mu) == jax.tree.map(jnp.shape, small.params["generator"])
    assert int(adam.count) == (6 if optimizer == "carried" else 0)
    assert any(bool(jnp.any(x)) for x in jax.tree.leaves(adam.mu)) == (optimizer == "carried")


def test_an_exported_ticket_masks_the_channels_with_their_shifts(done, tmp_path):
    """A gamma of 0 alone would leave the channel its beta."""
    name = "both-early_bird-round01-seed0"
    tickets.export(done, name, tmp_path / "t.safetensors")
    ticket = tickets.load(tmp_path / "t.safetensors")
    params = jax.tree.map(jnp.asarray, ticket.params)
    packed, provenance = stored_tickets.read(done, name)
    shapes = {path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(params)}
    bits = {leaf: np.unpackbits(b, count=int(np.prod(shapes[leaf]))).astype(bool) for leaf, b in packed.items()}
    expected = apply_channel_mask(params, {leaf: jnp.asarray(b.reshape(shapes[leaf])) for leaf, b in bits.items()})
    jax.tree.map(np.testing.assert_array_equal, apply(params, jax.tree.map(jnp.asarray, ticket.mask)), expected)
    assert provenance["unit"] == "channels"


class At(Preemption):
    """SIGTERM that comes before the loop has looked so often."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize(("looks", "arms"), [(3, set()), (10, {"dense"})], ids=["search", "ticket"])
def test_an_interrupted_run_goes_on_to_the_same_results(done, tmp_path, looks, arms):
    path = tmp_path / "run"
    with pytest.raises(Preempted):
        run(config(), path, At(looks))
    assert {r.arm for r in read_results(path)} == arms
    run(config(), path)
    untimed = lambda results: [r for r in results if not r.metric.endswith("_seconds")]  # noqa: E731
    assert untimed(read_results(path)) == untimed(read_results(done))
    assert read_log(path) == read_log(done)
    assert (path / "channel_masks.safetensors").read_bytes() == (done / "channel_masks.safetensors").read_bytes()


def test_a_damaged_start_of_tickets_is_made_again(done, tmp_path):
    """The state that tickets are cut from, with the tickets' own states gone."""
    path = tmp_path / "run"
    shutil.copytree(done, path)
    for phase in (1, 2):
        shutil.rmtree(path / "checkpoints" / "rounds" / str(phase))
    files = [p for p in (path / "checkpoints" / "snapshots" / "6").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[:64] = bytes(255 - b for b in data[:64])
    largest.write_bytes(data)
    with pytest.warns(UserWarning, match="Making that snapshot again"):
        run(config(), path)
    untimed = lambda results: [r for r in results if not r.metric.endswith("_seconds")]  # noqa: E731
    assert sorted(untimed(read_results(path))) == sorted(untimed(read_results(done)))


def test_a_finished_run_has_its_damage_mended(done, tmp_path):
    """The start of its tickets, and one of them as a file."""
    path = tmp_path / "run"
    shutil.copytree(done, path)
    shutil.rmtree(path / "checkpoints" / "snapshots" / "6")
    (mask,) = path.glob("tickets/both-early_bird-*/mask.safetensors")
    mask.write_bytes(mask.read_bytes()[:-1] + b"\xff")
    with pytest.warns(UserWarning, match="again"):
        run(config(), path)
    for file in done.glob("tickets/*/[!.]*"):
        assert (path / file.relative_to(done)).read_bytes() == file.read_bytes()
    assert (path / "checkpoints" / "snapshots" / "6").is_dir()


def test_where_no_mask_settles_the_last_one_is_taken(tmp_path, monkeypatch):
    update = channels.EarlyBird.update
    never = lambda *arguments: (update(*arguments)[0], jnp.zeros((), bool))  # noqa: E731
    monkeypatch.setattr(channels.EarlyBird, "update", never)
    settings = config(
        model={"name": "conv_autoencoder", "width": 4, "latent": 5},
        objective={"name": "reconstruction"},
        optimizer={"name": "adam", "learning_rate": 0.05},
        early_bird__arms=("early_bird",),
        early_bird__pruned="decoder",
        early_bird__optimizer="fresh",
        early_bird__slimming=1e-3,
        early_bird__compressions=(0.3, 0.6),
        parallel__tickets="vmap",
    )
    run(settings, tmp_path / "run")
    results = read_results(tmp_path / "run")
    assert {r.arm for r in results} == {"early_bird"} and {r.pruned for r in results} == {"decoder"}
    assert {r.value for r in results if r.metric == "found_step"} == {-1}
    light, heavy = ([r.value for r in results if r.metric == "weights" and r.sparsity == c] for c in (0.3, 0.6))
    assert heavy < light
    assert max(p["step"] for p in read_log(tmp_path / "run") if p["arm"] == "dense") == 8  # half of the training
    assert "decoder" in {r.pruned for r in results} and "weights" in write(tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": {"name": "linear_autoencoder"}, "objective": {"name": "reconstruction"}},
            "has no channels to remove",
        ),
        (
            {"early_bird__compressions": (0.99,)},
            "holds 0.99: .* would remove .* leave a layer with fewer than minimum=1",
        ),
        ({"early_bird__threshold": 1.0}, "config.early_bird.threshold is 1.0; it must lie between 0 and 1"),
        ({"early_bird__compressions": (0.5, 1.0)}, "compressions holds 1.0; each must lie between 0 and 1"),
        ({"early_bird__pruned": "encoder"}, "'encoder', but dcgan has generator, discriminator"),
        ({"early_bird__arms": ("dense",)}, "must hold 'early_bird' or 'early_bird_mixed'"),
        ({"early_bird__arms": ("winning",)}, "it takes dense, early_bird, early_bird_mixed, each once"),
        ({"early_bird__interval": 3}, "a mask every 3 steps gives 2 in the first 50% of 16 steps"),
        ({"early_bird__optimizer": "old"}, "takes one of carried, fresh"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
