"""Classifier guidance, autoguidance and functions of x0_hat, against exact scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classes import MEANS, NULL, SHARES, VARIANCES, both_of, class_model
from conftest import TINY, run
from oracles import gaussian_eps
from samplers import eps_model, table

import ddpm
from ddpm.diffusion import losses, predictions
from ddpm.diffusion.classifier import Classifier
from ddpm.diffusion.model import Model
from ddpm.errors import InputError
from ddpm.sampling.guidance import Guide, Guided, in_one_call, of_two
from ddpm.sampling.steering import Steered

T_SOME = np.array([400, 50, 900, 700])


def exact_log_prob(process, labels):
    """log p(y | x_t) by Bayes: each class is N(alpha mean, alpha^2 variance + sigma^2)."""

    def log_prob(x_t, t, x0_hat=None):
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        v = alpha**2 * VARIANCES[None] + sigma**2
        distance = ((x_t[:, None] - alpha[..., None] * MEANS[None]) ** 2).sum(-1)
        joint = np.log(SHARES)[None] - x_t.shape[1] / 2 * jnp.log(v) - distance / (2 * v)
        return (joint - jax.nn.logsumexp(joint, axis=1, keepdims=True))[jnp.arange(len(x_t)), labels]

    return log_prob


@pytest.mark.usefixtures("x64")
def test_an_exact_classifier_makes_the_unconditional_model_conditional():
    vp, t = table(), jnp.asarray(T_SOME)
    x_t, labels = jax.random.normal(jax.random.key(0), (4, 2)), jnp.array([0, 1, 2, 1])
    cond, uncond = class_model(vp, labels)(x_t, t), class_model(vp, NULL)
    steered = Steered(uncond, vp, [exact_log_prob(vp, labels)], [1.0])(x_t, t)
    cfg = Guided(in_one_call(class_model(vp, both_of(labels))), vp, Guide(), 1.0)(x_t, t)
    for found in (steered, cfg):
        np.testing.assert_allclose(found.eps, cond.eps, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.x0, cond.x0, rtol=1e-11, atol=1e-12)
    # Classifiers go along with classifier-free guidance, and their logarithms add up.
    log_prob = exact_log_prob(vp, labels)
    twice = Steered(cond_and_uncond := class_model(vp, NULL), vp, [log_prob, log_prob], [0.5, 1.5])(x_t, t)
    np.testing.assert_allclose(twice.eps, uncond(x_t, t).eps + 2 * (cond.eps - uncond(x_t, t).eps), rtol=1e-10)
    over_free = Steered(Guided(in_one_call(class_model(vp, both_of(labels))), vp, Guide(), 2.0), vp, [log_prob], [1.0])
    np.testing.assert_allclose(over_free(x_t, t).eps, twice.eps + cond.eps - cond_and_uncond(x_t, t).eps, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_function_of_x0_hat_goes_through_the_network():
    vp, mean, variance = table(), 0.3, 0.25
    t = jnp.array([300, 800])
    alpha, sigma = vp.alpha(t)[:, None], vp.sigma(t)[:, None]
    model = eps_model(vp, lambda x, time: gaussian_eps(mean, variance, alpha, sigma, x))
    x_t = jax.random.normal(jax.random.key(0), (2, 3))
    steered = Steered(model, vp, [lambda x_t, t, x0_hat: -jnp.sum((x0_hat - 0.9) ** 2, axis=1) / 2], [3.0])(x_t, t)
    gain = alpha * variance / (alpha**2 * variance + sigma**2)  # of E[x_0 | x_t] = mean + gain (x_t - alpha mean)
    x0_hat = mean + gain * (x_t - alpha * mean)
    plain = gaussian_eps(mean, variance, alpha, sigma, x_t)
    np.testing.assert_allclose(steered.eps, plain + 3 * sigma * gain * (x0_hat - 0.9), rtol=1e-9)
    np.testing.assert_allclose(alpha * steered.x0 + sigma * steered.eps, x_t, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_without_signal_nothing_is_added():
    vp, x_t = table(), jnp.ones((1, 2))
    process = vp._replace(alpha=lambda t: 0.0 * vp.alpha(t)) if hasattr(vp, "_replace") else None
    if process is None:

        class Signalless(type(vp)):
            def alpha(self, t):
                return 0.0 * super().alpha(t)

        process = object.__new__(Signalless)
        process.__dict__.update(vp.__dict__)
    model = class_model(vp, NULL)
    steered = Steered(model, process, [lambda x_t, t, x0_hat: x_t.sum(axis=1)], [5.0])(x_t, jnp.array([900]))
    np.testing.assert_array_equal(steered.eps, model(x_t, jnp.array([900])).eps)


@pytest.mark.usefixtures("x64")
def test_autoguidance_goes_away_from_the_worse_model():
    vp, t = table(), jnp.asarray(T_SOME)
    x_t = jax.random.normal(jax.random.key(0), (4, 2))
    good, bad = class_model(vp, jnp.array([0, 1, 2, 1])), class_model(vp, NULL)
    guided = Guided(of_two(good, bad), vp, Guide(), 3.0)(x_t, t)
    np.testing.assert_allclose(guided.eps, bad(x_t, t).eps + 3 * (good(x_t, t).eps - bad(x_t, t).eps), rtol=1e-12)


def test_a_classifiers_probabilities_are_those_of_its_logits():
    vp, t = table(), jnp.array([10, 500])
    zeros, logits = jnp.zeros((2, 4, 4, 1)), jnp.array([[1.0, 2.0, -1.0], [0.0, 0.0, 3.0]])
    network = Model(vp, predictions.eps(), lambda x, t: logits)
    each = [Classifier(network, jnp.full(2, y))(zeros, t) for y in range(3)]
    np.testing.assert_allclose(np.exp(each).sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(each[1][0] - each[0][0], 1.0, rtol=1e-6)
    loss = losses.cross_entropy().per_example(Classifier(network, jnp.array([1, 2])), zeros, zeros, t)
    np.testing.assert_allclose(loss, [-each[1][0], -each[2][1]], rtol=1e-6)


def bright(x0_hat, condition):
    """A user's function: images are to be bright."""
    return 100 * x0_hat.mean(axis=(1, 2, 3))


@pytest.mark.slow
def test_runs_guide_a_run_at_the_command_line_and_in_a_notebook(tmp_path):
    small = [flag for flag in TINY if "evaluat" not in flag or "every" in flag]
    classifier = [
        "--config.loss.name=cross_entropy", "--config.model.name=noisy_classifier",
        "--config.model.noisy_classifier.channels=8", "--config.model.noisy_classifier.channel_mult=(1,2)",
        "--config.model.noisy_classifier.num_heads=2",
    ]  # fmt: skip
    assert run(*small, f"--workdir={tmp_path / 'plain'}")[0] == 0
    code, out, err = run(*small, *classifier, f"--workdir={tmp_path / 'classifier'}")
    assert code == 0 and "guides" in out, err
    ask = [f"--workdir={tmp_path / 'plain'}", "--mode=sample", "--num=6", "--labels=3"]
    code, _, err = run(
        *ask, f"--classifiers={tmp_path / 'classifier'}", "--classifier_scale=50", f"--out={tmp_path}/x.npz"
    )
    assert code == 0, err
    opened = ddpm.load(tmp_path / "plain")
    told = dict(labels=3, guidance=dict(classifiers=(str(tmp_path / "classifier"),), classifier_scale=50.0))
    with np.load(tmp_path / "x.npz") as stored:
        np.testing.assert_array_equal(stored["arr_0"], opened.sample(6, **told))
        np.testing.assert_array_equal(stored["arr_1"], 3)
    compiled = len(opened._samplers)
    told["labels"], told["guidance"]["classifier_scale"] = 5, 1.0
    assert (opened.sample(6, **told) != opened.sample(6)).any() and len(opened._samplers) == compiled + 1
    light = opened.sample(6, guidance=dict(functions=("test_steering.bright",), function_scale=1.0))
    assert light.mean() > opened.sample(6).mean() + 10
    earlier = dict(worse=f"{tmp_path / 'plain'}@55")
    assert (opened.sample(6, guidance_scale=3, guidance=earlier) != opened.sample(6)).any()

    def mistake(**choice):
        with pytest.raises(InputError) as caught:
            opened.sample(1, **choice)
        return str(caught.value)

    assert mistake(guidance=dict(worse=str(tmp_path / "classifier")), guidance_scale=2) == (
        f"{tmp_path / 'classifier'} is a classifier (loss cross_entropy); this guide must be a diffusion model."
    )
    assert mistake(guidance=dict(classifiers=(str(tmp_path / "plain"),))) == (
        f"{tmp_path / 'plain'} is a diffusion model; this guide must be a classifier (loss cross_entropy)."
    )
    assert mistake(guidance=dict(classifier=())).startswith("unknown key of guidance 'classifier'")
    assert mistake(labels=3).startswith("labels are for a model that is told classes")
    assert mistake(guidance_scale=2).startswith("guidance_scale = 2.0 needs a model that is told something")
    code, _, err = run(f"--workdir={tmp_path / 'classifier'}", "--mode=sample")
    assert code == 2 and err.startswith("error: a classifier (loss 'cross_entropy') draws no images")
