"""Metrics of kept tickets: the same numbers in a run and afterwards, and those of an independent computation."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import cli
from lotto_jax.data import sources
from lotto_jax.experiments import build, classifier, measure
from lotto_jax.experiments.evaluate import evaluate
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.metrics import extractors, weights
from lotto_jax.objectives.state import Batch
from lotto_jax.reports import summary
from lotto_jax.runs import directory as directories
from lotto_jax.runs import kept, provenance
from lotto_jax.runs.directory import RunDirectory, RunDirectoryError
from lotto_jax.runs.results import read as read_results
from lotto_jax.training import streams
from lotto_jax.training.preemption import Preempted
from tests import tiny

pytestmark = pytest.mark.timeout(900)  # a ResNet-18 compiles for long on a busy machine
SAMPLES = 150  # one batch and a half
NAMES = ("accuracy", "fd_resnet18", "precision_recall")
FRECHET = f"fd_resnet18_{SAMPLES}"


def vae(**fields):
    chosen = {
        "dataset__train_examples": 128,
        "model": {"name": "vae", "latent": 4, "width": 2},
        "objective": {"name": "elbo", "beta": 4.0},
        "train__batch_size": 31,  # odd: on one device, as tiny things are fastest
        "imp__rounds": 1,
        "imp__fraction": 0.5,
        "parallel__tickets": "sequential",
    }
    return tiny.config(**(chosen | fields))


def autoencoder(**fields):
    return tiny.config(dataset__train_examples=128, train__batch_size=31, **fields)


def gan(**fields):
    model = {"name": "dcgan", "width": 2}
    return vae(model=model, objective={"name": "adversarial", "loss": "bce", "latent": 5}, **fields)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Reference statistics go to a cache of their own; there are no Inception weights in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTO_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A finished search without further metrics."""
    path = tmp_path_factory.mktemp("plain") / "run"
    run(vae(), path)
    return path


@pytest.fixture(scope="module")
def evaluated(plain, classifier_dir, tmp_path_factory):
    """The same, evaluated afterwards."""
    path = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(plain, path)
    evaluate(path, NAMES, classifier_dir, SAMPLES)
    return path


def resized(**fields):
    return tiny.config(dataset__image_size=16, **fields)


def content(path):
    return (path / "results.csv").read_text()


def test_a_run_and_a_later_evaluation_measure_the_same(evaluated, plain, classifier_dir, tmp_path):
    config = vae(metrics__names=NAMES, metrics__classifier=str(classifier_dir), metrics__samples=SAMPLES)
    run(config, tmp_path / "run")
    assert sorted(content(tmp_path / "run").splitlines()) == sorted(content(evaluated).splitlines())
    assert content(evaluated).startswith(content(plain))
    results = read_results(evaluated)
    added = {"accuracy", FRECHET, f"precision_resnet18_{SAMPLES}", f"recall_resnet18_{SAMPLES}"}
    assert {r.metric for r in results} == {"loss", "reconstruction_loss", "kl", "accuracy_on_originals"} | added
    for name in added:
        assert len([r for r in results if r.metric == name]) == 6  # dense, winning and random, of two seeds
    assert len([r for r in results if r.metric == "accuracy_on_originals"]) == 1
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (evaluated / "metrics.json").read_bytes()
    entry = json.loads((evaluated / "metrics.json").read_text())[FRECHET]
    assert entry["extractor"] == classifier.load(classifier_dir).identifier
    assert (entry["samples"], entry["reference_images"], entry["seeds"]) == (SAMPLES, 128, [0, 1])
    assert FRECHET in write(evaluated) and entry["extractor"] in (evaluated / "report.html").read_text()


def test_values_are_those_of_an_independent_computation(evaluated, classifier_dir):
    """A winning ticket, its weights enlarged so that samples differ, with numpy from its images on."""
    config, judge = directories.config_of(evaluated).unlock(), classifier.load(classifier_dir)
    config.metrics.update({"names": NAMES, "classifier": str(classifier_dir), "samples": SAMPLES})
    data = sources.load(**config.dataset)
    objective = build.objective(config, data.image_shape)
    with kept.opened(evaluated) as store:
        trained = kept.restore(store, 1)
    i = next(i for i, t in enumerate(trained.tickets) if (t.arm, t.seed) == ("winning", 1))
    trained = trained._replace(params=jax.tree.map(lambda x: 4 * x, trained.params))
    measured = measure.prepare(config, objective, data).ticket(i, trained, ["accuracy", FRECHET])
    params, state = jax.tree.map(lambda x: x[i], (trained.params, trained.model_state))
    variables = {"params": judge.params, **judge.model_state}

    @jax.jit
    def look(image):
        return judge.network.apply(variables, jnp.asarray(image, jnp.float32) / 255, method="features")

    key = jax.random.key(1)
    like = Batch(jnp.zeros((measure.BATCH, 8, 8, 1), jnp.uint8), jnp.zeros(measure.BATCH, jnp.int32))
    sample = jax.jit(objective.sample)
    parts = [np.asarray(sample(params, state, like, streams.key(key, streams.Stream.SAMPLES, n))) for n in (0, 1)]
    samples = np.round(255 * np.concatenate(parts)[:SAMPLES]).astype(np.uint8)
    assert samples.std(axis=0).mean() > 2  # they are not all the same
    a, b = (np.asarray(look(images)[0], np.float64) for images in (samples, data.train.image))
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    roots = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1]) - 2 * np.sum(roots)
    assert measured[FRECHET] == pytest.approx(expected, rel=5e-3) and expected > 0

    outputs = np.asarray(jax.jit(objective.reconstruct)(params, state, Batch(*map(jnp.asarray, data.test)), key))
    guesses = np.argmax(np.asarray(look(np.round(255 * outputs).astype(np.uint8))[1]), axis=1)
    assert measured["accuracy"] == pytest.approx(np.mean(guesses == data.test.label), abs=0.006)
    originals = np.argmax(np.asarray(look(data.test.image)[1]), axis=1)
    value = next(r.value for r in read_results(evaluated) if r.metric == "accuracy_on_originals")
    assert value == pytest.approx(np.mean(originals == data.test.label), abs=0.006) and value > 0.5


def test_evaluating_again_changes_nothing_and_more_samples_are_another_metric(evaluated, classifier_dir, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(evaluated, path)
    evaluate(path, NAMES, classifier_dir, SAMPLES)
    assert content(path) == content(evaluated)
    evaluate(path, ["fd_resnet18"], classifier_dir, 100)
    assert content(path).startswith(content(evaluated))
    assert {r.metric for r in read_results(path)} - {r.metric for r in read_results(evaluated)} == {"fd_resnet18_100"}


def test_an_interrupted_evaluation_goes_on(plain, evaluated, classifier_dir, tmp_path, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(plain, path)
    whole, done = measure.Measure.ticket, []

    def interrupted(self, i, trained, metrics):
        done.append(i)
        if len(done) == 4:
            raise KeyboardInterrupt
        return whole(self, i, trained, metrics)

    monkeypatch.setattr(measure.Measure, "ticket", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(path, NAMES, classifier_dir, SAMPLES)
    assert content(plain) < content(path) < content(evaluated)
    evaluate(path, NAMES, classifier_dir, SAMPLES)
    assert content(path) == content(evaluated)
    assert len(done) == 6 + 1


def test_a_run_goes_on_with_what_it_has_not_measured(plain, evaluated, classifier_dir, tmp_path, monkeypatch):
    """As after a preemption between two tickets, or with metrics that the configuration has got since."""
    path = tmp_path / "run"
    shutil.copytree(plain, path)
    config = vae(metrics__names=NAMES, metrics__classifier=str(classifier_dir), metrics__samples=SAMPLES)
    whole = measure.Measure.ticket

    def preempted(self, i, trained, metrics):
        if trained.tickets[i].arm == "winning":
            raise Preempted
        return whole(self, i, trained, metrics)

    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(measure.Measure, "ticket", preempted)
        run(config, path)
    assert content(plain) < content(path) < content(evaluated)
    run(config, path)
    assert content(path) == content(evaluated)


def test_metrics_of_another_classifier_are_not_mixed(evaluated, classifier_dir, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(evaluated, path)
    stored = json.loads((path / "metrics.json").read_text())
    stored[FRECHET]["extractor"] = "resnet18-other"
    provenance.write(path, stored)
    with pytest.raises(ValueError, match=f"{FRECHET} in .* was measured with extractor resnet18-other, not resnet18-"):
        evaluate(path, ["fd_resnet18"], classifier_dir, SAMPLES)
    evaluate(path, ["fd_resnet18"], classifier_dir, SAMPLES, force=True)
    assert sorted(content(path).splitlines()) == sorted(content(evaluated).splitlines())
    assert json.loads((path / "metrics.json").read_text()) == json.loads((evaluated / "metrics.json").read_text())


def test_rounds_between_measurements_and_states_that_are_gone(classifier_dir, tmp_path, capsys):
    config = autoencoder(imp__rounds=3, metrics__names=("accuracy",), metrics__classifier=str(classifier_dir))
    config.metrics.every = 2
    config.checkpoint.keep_states = "last"
    run(config, tmp_path / "run")
    results = read_results(tmp_path / "run")
    assert {r.round for r in results if r.metric == "accuracy"} == {0, 2, 3}
    assert {r.metric for r in results} == {"reconstruction_loss", "accuracy", "accuracy_on_originals"}
    write(tmp_path / "run")
    before = content(tmp_path / "run")
    evaluate(tmp_path / "run")
    assert content(tmp_path / "run") == before
    assert "rounds 1 to 2 were not kept" in capsys.readouterr().out


def test_samples_of_a_gan_that_broke_down_are_measured_and_left_out(classifier_dir, tmp_path):
    config = gan(optimizer={"name": "sgd", "learning_rate": 1e30}, metrics__names=("frechet",))
    config.metrics.classifier, config.metrics.samples = str(classifier_dir), 100
    run(config, tmp_path / "run")
    results = read_results(tmp_path / "run")
    values = [r.value for r in results if r.metric == "fd_resnet18_100"]
    assert len(values) == 6 and np.all(np.isfinite(values))
    assert all(p.values == () for p in summary.points(results, "fd_resnet18_100"))


def _thumbnail(params, images):
    """Features of a stand-in for Inception: four pixels, mixed."""
    four = images[:, ::4, ::4].reshape(images.shape[0], -1) @ params
    return {"2048": four, "logits_unbiased": four / 64}


def test_inception_features_are_the_default_where_their_weights_are(plain, classifier_dir, tmp_path, monkeypatch):
    mixing = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
    stand_in = extractors.Extractor("inception", "inception-stand-in", mixing, _thumbnail, "2048")
    (tmp_path / "weights").touch()
    monkeypatch.setattr(weights, "default_path", lambda: tmp_path / "weights")
    monkeypatch.setattr(extractors, "inception", lambda: stand_in)
    path = tmp_path / "run"
    shutil.copytree(plain, path)
    evaluate(path, ["frechet", "inception_score", "precision_recall"], samples=1000)
    evaluate(path, ["fd_resnet18", "fid"], classifier_dir, samples=1000)
    evaluate(path, ["inception_score"], classifier_dir, samples=1000, features="classifier")
    added = {r.metric for r in read_results(path)} - {r.metric for r in read_results(plain)}
    scores = {"inception_score_1k", "is_resnet18_1k"}
    assert added == {"fid_1k", "precision_1k", "recall_1k", "fd_resnet18_1k"} | scores
    assert all(r.value >= 1 for r in read_results(path) if r.metric in scores)


def test_too_few_samples_are_warned_of(plain, classifier_dir, tmp_path):
    shutil.copytree(plain, tmp_path / "run")
    with pytest.warns(UserWarning, match="12 images are fewer than the 16 features.*biased upward"):
        evaluate(tmp_path / "run", ["fd_resnet18"], classifier_dir, 12)


@pytest.mark.parametrize(
    ("config", "names", "fields", "message"),
    [
        (vae, ("fdi",), {}, "holds 'fdi'; it takes accuracy, frechet, fid"),
        (vae, ("fid", "fid"), {}, "every entry may be there once"),
        (gan, ("accuracy",), {}, "holds 'accuracy', but dcgan reconstructs no images"),
        (autoencoder, ("frechet",), {}, "holds 'frechet', but linear_autoencoder draws no samples"),
        (tiny.classifier, ("accuracy",), {}, "resnet18 reconstructs no images"),
        (vae, ("kid",), {"samples": 999}, "samples is 999, but kid needs 1000 images"),
        (vae, ("kid",), {"samples": 1000}, "there are only 128 training images"),
        (vae, ("frechet",), {"classifier": ""}, "no Inception weights at .* config.metrics.classifier is empty"),
        (vae, ("accuracy",), {"classifier": ""}, "which needs a classifier, but config.metrics.classifier is empty"),
        (
            autoencoder,
            ("tests.experiments.own:LOSS",),
            {},
            "column 'reconstruction_loss' a run has already",
        ),
        (vae, ("fid",), {}, "No Inception weights at .*lotto-jax weights"),
        (vae, ("accuracy",), {"samples": 9}, "config.metrics.samples is 9; it must be at least 10"),
        (vae, ("inception_score",), {"features": "clip"}, "features is 'clip', which has no classes; leave it out"),
        (vae, ("fd_dinov2",), {}, "No weights of dinov2 at .*: download model.safetensors"),
        (vae, ("accuracy",), {"features": "vgg"}, "takes one of auto, inception, dinov2, clip, classifier"),
        (resized, ("accuracy",), {}, "digits images of 8x8x1, but this run has digits images of 16x16x1"),
    ],
)
def test_a_metric_that_makes_no_sense_is_one_sentence(tmp_path, classifier_dir, config, names, fields, message):
    chosen = config(metrics__names=names)
    chosen.metrics.update({"classifier": str(classifier_dir)} | fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        run(chosen, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_classifier_of_attributes_gives_no_inception_score(classifier_dir):
    chosen = gan(metrics__names=("inception_score",), metrics__classifier=str(classifier_dir))
    dataset = sources.load(**chosen.dataset)
    objective = build.objective(chosen, dataset.image_shape, dataset.classes)
    attributes = dataset.train._replace(label=np.zeros((len(dataset.train.label), 3), np.int32))
    with pytest.raises(ValueError, match="holds 'inception_score', but the classifier of digits tells attributes"):
        measure.prepare(chosen, objective, dataset._replace(train=attributes))


def test_a_run_that_cannot_be_evaluated_is_one_sentence(plain, classifier_dir, tmp_path, capsys):
    with pytest.raises(ValueError, match="There is no run in"):
        evaluate(tmp_path / "nowhere", NAMES)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ValueError, match="names no metrics; give --metrics="):
        evaluate(plain)
    shutil.copytree(plain, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints" / "rounds")
    with pytest.raises(ValueError, match=r"No round of the run in .* is finished"):
        evaluate(tmp_path / "begun", NAMES, classifier_dir)
    going_on = RunDirectory(plain, vae())
    with pytest.raises(RunDirectoryError, match="Another run is using"):
        evaluate(plain, NAMES, classifier_dir)
    going_on.close()
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", f"--workdir={plain}", "--metrics=accuracy"])
    assert end.value.code == 1 and "needs a classifier" in capsys.readouterr().err


def test_the_command_measures_and_reports(plain, classifier_dir, tmp_path, capsys):
    shutil.copytree(plain, tmp_path / "run")
    arguments = ["--metrics=accuracy,frechet", f"--classifier={classifier_dir}", f"--samples={SAMPLES}"]
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", f"--workdir={tmp_path / 'run'}", *arguments])
    assert end.value.code == 0 and f"\n{FRECHET} (mean" in capsys.readouterr().out
