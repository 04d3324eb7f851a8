"""Diffusion and flow matching against a Gaussian mixture, of which everything is known in closed form (float64)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from lotto_jax.data import mixture
from lotto_jax.models.mlp import MLP
from lotto_jax.objectives import averaging, denoising, diffusion, flow_matching
from lotto_jax.objectives.diffusion import Diffusion
from lotto_jax.objectives.flow_matching import Flow
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks

SHAPE = (1, 1, 2)
FLOW = Flow()


def flat(x):
    return np.asarray(x, np.float64).reshape(-1, 2)


def as_batch(x):
    return jnp.asarray(x, jnp.float32).reshape(-1, *SHAPE)


def expected_data(x, signal, noise):
    """`mixture.expected_data` in JAX, for one signal and noise an example."""
    centers, x = jnp.asarray(mixture.centers(), jnp.float32), x.reshape(-1, 2)
    signal, noise = signal.reshape(-1, 1, 1), noise.reshape(-1, 1, 1)
    offset, variance = x[:, None] - signal * centers[None], (signal * mixture.SPREAD) ** 2 + noise**2
    weight = jax.nn.softmax(-0.5 * jnp.sum(offset**2, -1) / variance[..., 0], axis=1)
    return as_batch(jnp.sum(weight[..., None] * (centers[None] + signal * mixture.SPREAD**2 / variance * offset), 1))


def best_velocity(x, time):
    """What the best network of a rectified flow says; at the data themselves the limit, minus what is expected."""
    s = denoising.broadcast(time)
    data = expected_data(x, 1 - time, time)
    return jnp.where(s > 1e-6, (x - data) / jnp.maximum(s, 1e-6), -data)


def of_diffusion(prediction, schedule="cosine", steps=1000):
    """A diffusion, and its best network."""
    own = Diffusion(prediction, np.cumprod(1 - diffusion.SCHEDULES[schedule](steps)))

    def denoise(x, time):
        signal, amount = own.scales(own.number(time))
        data = expected_data(x, signal, amount)
        signal, amount = map(denoising.broadcast, (signal, amount))
        noise = (x - signal * data) / amount
        return noise if prediction == "epsilon" else signal * noise - amount * data

    return own, denoise


def points(count, seed=0):
    rng = np.random.default_rng(seed)
    return mixture.points(rng, count)[0], rng.normal(size=(count, 2))


def test_the_closed_form_is_the_slope_of_the_log_density():
    """Tweedie: the score is (signal * E[data | x] - x) / noise^2."""
    data, noise = points(50)
    x, step = 0.8 * data + 0.3 * noise, 1e-5
    slope = [
        (mixture.log_density(x + step * e, 0.8, 0.3) - mixture.log_density(x - step * e, 0.8, 0.3)) / (2 * step)
        for e in np.eye(2)
    ]
    score = (0.8 * mixture.expected_data(x, 0.8, 0.3) - x) / 0.3**2
    np.testing.assert_allclose(score, np.stack(slope, 1), rtol=1e-5, atol=1e-5)
    found = expected_data(as_batch(x), jnp.full(50, 0.8), jnp.full(50, 0.3))
    np.testing.assert_allclose(flat(found), mixture.expected_data(x, 0.8, 0.3), atol=1e-5)


@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules_lead_from_data_to_noise(name, steps):
    betas = diffusion.SCHEDULES[name](steps)
    kept = np.cumprod(1 - betas)
    assert betas.shape == (steps,) and np.all((betas > 0) & (betas < 1))
    assert kept[0] > 0.99 * (1 - 20 / steps) and kept[-1] < 1e-4
    if name == "linear" and steps == 1000:
        np.testing.assert_allclose(betas[[0, -1]], [1e-4, 0.02])


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_target_of_a_diffusion_gives_back_the_data(prediction):
    own = of_diffusion(prediction)[0]
    data, noise = map(as_batch, points(40))
    time = own.time(jnp.linspace(0, 0.999, 40))
    assert own.number(time).tolist() == [int(1000 * t) for t in np.float32(np.linspace(0, 0.999, 40))]
    x, target = own.noised(data, noise, time), own.target(data, noise, time)
    kept = own.kept[np.asarray(own.number(time))][:, None]
    np.testing.assert_allclose(flat(x), np.sqrt(kept) * flat(data) + np.sqrt(1 - kept) * flat(noise), atol=1e-6)
    found = own.data_of(lambda *_: target, x, own.number(time), clip=False)
    np.testing.assert_allclose(found[:30], data[:30], atol=1e-4)  # later ones are noise divided by next to nothing


def test_the_ancestral_sampler_over_all_steps_is_that_of_ho_et_al():
    """Their equations 6, 7 and 11, in float64, with the same noise."""
    steps = 20
    own, _ = of_diffusion("epsilon", steps=steps)
    key, start = jax.random.key(1), as_batch(points(5)[1])
    network = lambda x, time: 0.5 * jnp.sin(3 * x) + denoising.broadcast(time)  # noqa: E731
    found = own.sample(network, start, key, False, steps, True)
    x, kept = flat(start), own.kept
    for step, own_key in zip(range(steps - 1, -1, -1), jax.random.split(key, steps), strict=True):
        before = kept[step - 1] if step else 1.0
        beta = 1 - kept[step] / before
        eps = 0.5 * np.sin(3 * x) + step / steps
        mean = (x - beta / np.sqrt(1 - kept[step]) * eps) / np.sqrt(1 - beta)
        spread = np.sqrt(beta * (1 - before) / (1 - kept[step]))
        x = mean + spread * flat(jax.random.normal(own_key, start.shape))
    np.testing.assert_allclose(flat(found), x, rtol=1e-3, atol=1e-3)


def order(errors):
    """Of a method whose steps halve from one error to the next."""
    return float(np.mean(np.log2(np.array(errors)[:-1] / np.array(errors)[1:])))


def test_euler_is_of_order_1_and_heun_of_order_2_on_the_best_velocity():
    start = points(16)[1]

    def slope(s, x):
        x = x.reshape(-1, 2)
        return ((x - mixture.expected_data(x, 1 - s, s)) / s).reshape(-1)

    end = 0.2  # beyond it the velocity is stiff, and float32 errors hide the order
    exact = solve_ivp(slope, (1.0, end), start.reshape(-1), rtol=1e-10, atol=1e-12).y[:, -1].reshape(-1, 2)
    at = lambda x, s: best_velocity(x, jnp.broadcast_to(s, x.shape[:1]))  # noqa: E731
    errors = {}
    for heun in (False, True):
        solve = lambda x, n, heun=heun: flow_matching.integrate(at, x, 1.0, end, n, heun)  # noqa: E731
        found = [solve(as_batch(start), n) for n in (16, 32, 64)]
        errors[heun] = [np.abs(flat(x) - exact).max() for x in found]
    assert order(errors[False]) == pytest.approx(1.0, abs=0.3), errors
    assert order(errors[True]) == pytest.approx(2.0, abs=0.5), errors
    assert errors[True][-1] < errors[False][-1] / 10


def test_ddim_converges_with_its_steps_and_all_samplers_draw_the_mixture():
    noise = as_batch(points(1000, seed=3)[1])
    own, denoise = of_diffusion("epsilon")
    draw = lambda n, ancestral: flat(own.sample(denoise, noise, jax.random.key(0), False, n, ancestral))  # noqa: E731
    exact = draw(1000, False)
    errors = [np.median(np.abs(draw(n, False) - exact)) for n in (25, 50, 100)]
    assert order(errors) == pytest.approx(1.0, abs=0.35), errors
    velocity = lambda x, s: best_velocity(x, jnp.broadcast_to(s, x.shape[:1]))  # noqa: E731
    flow = flat(flow_matching.integrate(velocity, noise, 1.0, 0.0, 100, True))
    truth = points(20_000, seed=4)[0]
    entropy = -mixture.log_density(truth).mean()
    for name, x in {"ddim": exact, "ddpm": draw(1000, True), "heun": flow}.items():
        nearest = np.argmin(np.sum((x[:, None] - mixture.centers()) ** 2, -1), axis=1)
        share = np.bincount(nearest, minlength=mixture.COUNT) / len(x)
        np.testing.assert_allclose(share, 1 / mixture.COUNT, atol=0.05, err_msg=name)
        spread = np.std(x - mixture.centers()[nearest])
        assert spread == pytest.approx(mixture.SPREAD, rel=0.06), name
        assert -mixture.log_density(x).mean() == pytest.approx(entropy, abs=0.1), name


def test_the_likelihood_of_the_best_flow_and_the_bound_of_the_best_diffusion_are_the_entropy():
    data = points(4000, seed=5)[0]
    truth = -mixture.log_density(data).mean()
    found = flow_matching.nats(best_velocity, as_batch(data), jax.random.key(0), False, 100)
    assert float(jnp.mean(found)) == pytest.approx(truth, abs=0.05)
    own, denoise = of_diffusion("v", "linear")
    bound = np.mean([own.nats(denoise, as_batch(data), jax.random.key(i), False, False) for i in range(4)])
    assert truth - 0.02 < bound < truth + 0.1


def test_the_probabilities_of_all_bytes_add_up_to_one():
    byte = jnp.asarray(np.arange(256) / 127.5 - 1, jnp.float32).reshape(256, 1, 1, 1)
    for mean in (-1.0, -0.3, 0.996, 1.2):
        log = diffusion._log_byte(byte, jnp.full_like(byte, mean), np.float32(0.02))
        assert float(jnp.sum(jnp.exp(log))) == pytest.approx(1.0, abs=1e-4)


MAKERS = {"diffusion": diffusion.make, "flow_matching": flow_matching.make}


@pytest.mark.parametrize("name", MAKERS)
def test_training_approaches_the_best_network(name):
    """The mean squared distance of the averaged network to the closed form falls to a tenth of what it was."""
    model = MLP(width=64, depth=3)
    objective = MAKERS[name](model, optax.adam(3e-3), SHAPE, ema=0.98)
    data = as_batch(points(4096, seed=6)[0])
    mask = masks.ones(jax.eval_shape(objective.init, jax.random.key(0)).params)

    @jax.jit
    def train(state):
        def step(state, key):
            index_key, key = jax.random.split(key)
            image = data[jax.random.randint(index_key, (256,), 0, len(data))]
            return objective.step(state, mask, Batch(image, jnp.zeros(256, jnp.int32)), key)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 1000))

    x, noise = map(as_batch, points(2000, seed=7))
    time = jnp.floor(jnp.linspace(0.05, 0.95, 2000) * 1000) / 1000
    own, best = (FLOW, best_velocity) if name == "flow_matching" else of_diffusion("epsilon", "linear")
    noised = own.noised(x, noise, time)

    def distance(state):
        params = state.model_state[averaging.COLLECTION][denoising.COMPONENT]
        return float(jnp.mean((model.apply({"params": params}, noised, time, False) - best(noised, time)) ** 2))

    start = objective.init(jax.random.key(0))
    trained, metrics = train(start)
    assert distance(trained) < 0.1 * distance(start)
    held_out = Batch(x, jnp.zeros(len(x), jnp.int32))
    found = objective.evaluate(trained.params, trained.model_state, held_out, jax.random.key(0))
    levels = [float(found[f"loss_level_{i}"]) for i in range(1, 5)]
    assert float(found["loss"]) == pytest.approx(np.mean(levels), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(metrics["loss"][-200:].mean()), rel=0.2)


class Line(nn.Module):
    """A kernel, a shift, and a batch norm."""

    @nn.compact
    def __call__(self, x, time, train):
        y = nn.Dense(4)(x.reshape(len(x), -1)) + time[:, None]
        y = nn.BatchNorm(not train, momentum=0.9)(y)
        return nn.Dense(2)(y).reshape(x.shape)


def test_the_average_follows_the_params_is_masked_and_is_what_evaluation_sees():
    objective = flow_matching.make(Line(), optax.adam(0.1), SHAPE, ema=0.5)
    state = objective.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 10))
    mask = masks.ones(state.params)
    mask = jax.tree.map(lambda m: jax.random.bernoulli(next(keys), 0.5, m.shape) if m.ndim else m, mask)
    batch = Batch(as_batch(points(32)[0]), jnp.zeros(32, jnp.int32))
    # As a ticket starts: its params are masked, the average in the snapshot is not yet.
    state = state._replace(params=masks.apply(state.params, mask))
    average = jax.tree.map(np.float64, state.model_state["ema"])
    step = jax.jit(objective.step)
    for number in range(12):
        state, _ = step(state, mask, batch, jax.random.key(number))
        decay = min(0.5, (1 + number) / (10 + number))
        average = jax.tree.map(
            lambda a, p, m, d=decay: m * (d * a + (1 - d) * np.float64(p)), average, state.params, mask
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.model_state["ema"], average)
    for value, m in zip(*map(jax.tree.leaves, (state.model_state["ema"], mask)), strict=True):
        assert np.all(np.asarray(value)[~np.broadcast_to(m, value.shape)] == 0)
    other = jax.tree.map(jnp.zeros_like, state.params)
    for function in (objective.evaluate, objective.sample):
        a, b = (function(p, state.model_state, batch, jax.random.key(3)) for p in (state.params, other))
        jax.tree.map(np.testing.assert_array_equal, a, b)
    alone = {"batch_stats": state.model_state["batch_stats"]}
    a = objective.evaluate(state.model_state["ema"], alone, batch, jax.random.key(3))
    b = objective.evaluate(state.params, state.model_state, batch, jax.random.key(4))
    assert a == b  # and the noise of evaluation does not depend on the seed
    assert objective.losses[0].value(other, state.model_state, batch, jax.random.key(3)) != a["loss"]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("diffusion", {"prediction": "x0"}, "prediction is 'x0'; a diffusion takes epsilon or v"),
        ("diffusion", {"schedule": "sigmoid"}, "schedule is 'sigmoid'; a diffusion takes linear or cosine"),
        ("diffusion", {"sampler": "heun"}, "sampler is 'heun'; a diffusion takes ddpm or ddim"),
        ("diffusion", {"noise_steps": 1}, "noise_steps is 1; a diffusion takes 2 or more"),
        ("diffusion", {"sample_steps": 1001}, "sample_steps is 1001; it must be from 1 to noise_steps, 1000"),
        ("flow_matching", {"sampler": "ddim"}, "sampler is 'ddim'; a flow takes euler or heun"),
        ("flow_matching", {"sample_steps": 0}, "sample_steps is 0"),
        ("flow_matching", {"likelihood_steps": -1}, "likelihood_steps is -1"),
        ("flow_matching", {"smallest_noise": 1.0}, r"smallest_noise is 1.0; it must lie in \[0, 1\)"),
        ("flow_matching", {"ema": 1.0}, r"ema is 1.0; the decay of the average of params must lie in \[0, 1\)"),
    ],
)
def test_bad_settings_are_clear_errors(name, fields, message):
    with pytest.raises(ValueError, match=message):
        MAKERS[name](MLP(), optax.sgd(0.1), SHAPE, **fields)
