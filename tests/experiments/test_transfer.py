"""Tickets of one search as initializations in another: a VAE's decoder becomes a DCGAN's generator, and back.

The runs are of two small autoencoders whose second component has another name; the paper's networks are compared by
their shapes.
"""

import re

import jax
import numpy as np
import pytest

from configs import transfer_dcgan_to_vae_cifar10, transfer_vae_to_dcgan_cifar10
from lotto_jax import tickets
from lotto_jax.data import sources
from lotto_jax.experiments import build, transfer, transfer_arms
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import feed_of, run
from lotto_jax.runs import kept
from lotto_jax.runs.results import read as read_results
from lotto_jax.tickets import LoadedTicket
from lotto_jax.training import loop, mesh, packing
from tests import tiny

OWN = "tests.experiments.own:Named"


def search(last, **fields):
    settings = {
        "model": {"name": OWN, "last": last},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},  # a sum in another order is not amplified
        "dataset__train_examples": 254,
        "train__epochs": 3,
        "imp__rounds": 1,
        "imp__fraction": 0.5,
        "imp__rewind_step": 2,
    }
    return tiny.config(**(settings | fields))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished search for the tickets of a decoder."""
    path = tmp_path_factory.mktemp("source") / "run"
    run(search("decoder", imp__pruned=("decoder",), imp__arms=("winning",)), path)
    return path


def into(source, **fields):
    settings = {
        "experiment": "transfer",
        "imp__pruned": ("generator",),
        "imp__arms": ("winning", "random", "transfer"),
        "transfer__source": str(source),
        "transfer__component": "decoder",
    }
    return search("generator", **(settings | fields))


@pytest.fixture(scope="module")
def transferred(source):
    path = source.parent / "transferred"
    run(into(source), path)
    return path


def test_all_arms_of_a_round_are_equally_sparse(transferred):
    sparsity = {r.arm: r.sparsity for r in read_results(transferred) if r.round == 1}
    assert set(sparsity) == {"winning", "random", "transfer"} and len(set(sparsity.values())) == 1
    assert "transfer" in write(transferred)


def test_a_ticket_trains_from_the_sources_mask_and_rewound_weights_in_an_unpruned_network(source, transferred):
    """Trained by hand from the exported file, all its steps, it is what the run kept."""
    config = into(source)
    dataset = sources.load(**config.dataset)
    feed = feed_of(config, dataset)
    objective = build.objective(config, dataset.image_shape, steps=feed.steps)
    tickets.export(source, "decoder-winning-round01-seed1", source / "t.safetensors")
    ticket = tickets.load(source / "t.safetensors")
    states = loop.init(objective, np.asarray([1], np.uint32), np.uint32(0))
    kernel, keep = ticket.params["decoder"]["dense"]["kernel"], ticket.mask["decoder"]["dense"]["kernel"]
    own = {"dense": {"kernel": kernel * keep, "bias": ticket.params["decoder"]["dense"]["bias"]}}
    own["norm"] = ticket.params["decoder"]["norm"]
    stacked = lambda tree: jax.tree.map(lambda x: np.asarray(x)[None], tree)  # noqa: E731
    mask = {**jax.tree.map(lambda x: np.True_, states.params), "generator": ticket.mask["decoder"]}
    states = states._replace(
        params={**states.params, "generator": stacked(own)},
        model_state={"batch_stats": {"generator": stacked(ticket.model_state["batch_stats"]["decoder"])}},
    )
    data, on = packing.pack(*dataset.train), mesh.make(1, 1, 1)
    bounds = np.int32(0), np.int32(feed.steps)
    states, _, _ = loop.train(objective, states, stacked(mask), data, *bounds, batch_size=127, length=8, mesh=on)
    with kept.opened(transferred) as phases:
        found = kept.restore(phases, 1)
    i = [(t.arm, t.seed) for t in found.tickets].index(("transfer", 1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-6),
        (states.params, states.model_state),
        (found.params, found.model_state),
    )
    trained = np.asarray(found.params["generator"]["dense"]["kernel"][i])
    np.testing.assert_array_equal(trained == 0, ~keep)
    assert np.all(np.asarray(found.params["encoder"]["dense"]["kernel"][i]) != 0)


@pytest.fixture(scope="module")
def between_seeds(source):
    """By alignment: the masks of the own seeds, and those of the other seeds with and without permuted channels."""
    found = {}
    for shift, align in ((0, True), (1, False), (1, True)):
        path = source.parent / f"masks{shift}{align}"
        fields = {"transfer__takes": "mask", "transfer__seed_shift": shift, "transfer__align": align}
        own = {"imp__pruned": ("decoder",), "imp__arms": ("winning", "transfer"), "transfer__component": "decoder"}
        run(search("decoder", experiment="transfer", transfer__source=str(source), **own, **fields), path)
        with kept.opened(path) as phases:
            found[shift, align] = kept.restore(phases, 1)
    return found


def kernels(found, arm):
    """Of the decoder, by seed."""
    kernel = np.asarray(found.params["decoder"]["dense"]["kernel"])
    return {t.seed: kernel[i] for i, t in enumerate(found.tickets) if t.arm == arm}


def test_the_own_mask_is_the_winning_ticket_whatever_is_aligned(between_seeds):
    found = between_seeds[0, True]
    tiny.assert_same(kernels(found, "winning"), kernels(found, "transfer"))


def test_the_mask_of_another_seed_is_permuted_as_the_dense_networks_match(between_seeds):
    plain, aligned = (kernels(between_seeds[1, align], "transfer") for align in (False, True))
    winning = kernels(between_seeds[1, False], "winning")
    for seed, other in ((0, 1), (1, 0)):
        mask, expected = aligned[seed] != 0, winning[other] != 0
        np.testing.assert_array_equal(plain[seed] != 0, expected)
        assert not np.array_equal(mask, expected)
        # The hidden units, rows of the kernel, in another order.
        np.testing.assert_array_equal(mask[np.lexsort(mask.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (transfer_vae_to_dcgan_cifar10.get_config(), {"name": "vae", "latent": 128, "width": 64}),
        (transfer_dcgan_to_vae_cifar10.get_config(), {"name": "dcgan", "width": 64}),
    ],
    ids=("vae_to_dcgan", "dcgan_to_vae"),
)
def test_the_papers_decoder_and_generator_fit_each_other(config, found):
    """All leaves of both, params and batch statistics, by name and shape; no weights are made."""
    other = config.copy_and_resolve_references().unlock()
    other.model = found
    other.objective = {"loss": "bce", "latent": 128} if found["name"] == "dcgan" else {"beta": 1.0}
    here, there = (build.objective(c, (32, 32, 3), steps=10) for c in (config, other))
    state = jax.eval_shape(there.init, jax.random.key(0))
    ticket = LoadedTicket(state.params, {}, state.model_state, {"name": "ticket"})
    pairs = [(config.transfer.component, config.imp.pruned[0])]
    transfer.check_fits(config, ticket, jax.eval_shape(here.init, jax.random.key(0)), pairs)


def test_only_the_paired_component_is_moved():
    into, found = {"generator": 1, "discriminator": 2}, {"encoder": 3, "decoder": 4}
    assert transfer_arms.moved(into, found, [("decoder", "generator")]) == {"generator": 4, "discriminator": 2}
    assert transfer_arms.moved({"discriminator": 2}, found, [("decoder", "generator")]) == {"discriminator": 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"transfer__source": ""}, "config.transfer.source is empty"),
        ({"transfer__source": "/nowhere"}, "config.transfer.source: There is no run in /nowhere"),
        ({"transfer__component": "encoder"}, "no ticket encoder-winning-round01-seed0"),
        ({"seeds": (0, 7)}, "no ticket decoder-winning-round01-seed7"),
        ({"imp__rounds": 2}, "no ticket decoder-winning-round02-seed0"),
        ({"imp__fraction": 0.4}, "config.imp.fraction is 0.4, but the search in .* removed 0.5"),
        ({"imp__arms": ("winning", "random")}, "must hold 'transfer'"),
        ({"imp__pruned": ("generator", "encoder")}, "takes one choice of components"),
        ({"imp__pruned": ("both",)}, "'both' goes with 'both'"),
        ({"imp__pruned": ("encoder",)}, r"\(decoder\) has shape \(64,\) at 'dense/bias', where the network has \(8,\)"),
        ({"model": {"name": OWN, "last": "generator", "latent": 9}}, r"shape \(8, 64\) at 'dense/kernel'"),
        ({"imp__one_shot_sparsities": (0.5,)}, "does not read it"),
        ({"transfer__align": True}, "config.transfer.align .* needs config.transfer.takes = 'mask', and one component"),
        ({"transfer__takes": "weights"}, "config.transfer.takes is 'weights'; it takes one of ticket, mask"),
    ],
)
def test_what_does_not_fit_is_one_sentence(source, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        run(into(source, **fields), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_the_other_experiments_do_not_read_the_section(tmp_path):
    with pytest.raises(ValueError, match=re.escape("config.transfer.source is 'a', but the experiment 'imp' does not")):
        run(search("decoder", transfer__source="a"), tmp_path / "run")
