"""Training losses: each against arithmetic by hand, or the bound whose estimate it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm.diffusion import continuous, predictions, rescale, schedules, weights
from ddpm.diffusion.losses import hybrid, uncertain, vdm, vlb, weighted
from ddpm.diffusion.model import Model
from ddpm.diffusion.processes import VP, ContinuousVP, RectifiedFlow
from ddpm.diffusion.variational import term_bpd
from ddpm.errors import InputError

pytestmark = pytest.mark.usefixtures("x64")
PROCESS = VP(schedules.linear(200, 5e-4, 0.02))
ONE = lambda process, prediction, t: jnp.ones_like(process.alpha(t))  # noqa: E731
X_0 = np.linspace(-1, 1, 256)[np.arange(3 * 4).reshape(3, 4) * 20]
EPS = np.random.default_rng(0).standard_normal((3, 4))
T = np.array([1, 2, 150])


def batch():
    """Data, noise and times, in the precision of the test."""
    return jnp.asarray(X_0), jnp.asarray(EPS), jnp.asarray(T)


def constant(output, *, learned=False, process=PROCESS, prediction=None, calls=None):
    """A model that says the same of everything."""

    def network(x_t, condition):
        if calls is not None:
            calls.append(x_t.shape)
        return output

    return Model(process, prediction or predictions.eps(), network, learned)


def test_weighted_is_the_mean_square_per_example_times_the_weight():
    eps = jnp.zeros((2, 2, 2, 1))
    says = jnp.stack([jnp.ones((2, 2, 1)), jnp.array([[[3.0], [0.0]], [[0.0], [1.0]]])])
    weight = lambda process, prediction, t: 10.0 * t  # noqa: E731
    of = weighted(weight).per_example(constant(says), eps + 0.5, eps, jnp.array([3, 7]))
    np.testing.assert_allclose(of, [30 * 1.0, 70 * 2.5])


@pytest.mark.parametrize(("name", "error"), [("eps", -1.0), ("x0", 0.5), ("v", None)])
def test_weighted_is_of_what_the_network_predicts(name, error):
    x_0, eps, t = jnp.full((1, 2), -0.5), jnp.ones((1, 2)), jnp.array([50])
    a = PROCESS.alpha_bar[50]
    error = error or np.sqrt(a) + 0.5 * np.sqrt(1 - a)
    model = constant(jnp.zeros((1, 2)), prediction=getattr(predictions, name)())
    np.testing.assert_allclose(weighted(ONE).per_example(model, x_0, eps, t), [error**2], rtol=1e-12)


def test_hybrid_is_weighted_and_a_thousandth_of_the_bound():
    model = constant(jnp.concatenate([EPS + 0.1, jnp.full((3, 4), 0.2)], axis=-1), learned=True)
    x_0, eps, t = batch()
    terms = term_bpd(model, "learned", x_0, eps, t - 1, t)
    for options, scale in (({}, 0.001), ({"vlb_weight": 1}, 1)):
        of = hybrid(lambda process, prediction, t: 2.0 + 0 * process.alpha(t), **options).per_example(model, *batch())
        np.testing.assert_allclose(of, 2 * 0.01 + scale * 200 * terms, rtol=1e-12)


def test_the_bounds_part_of_hybrid_trains_the_variance_alone():
    loss = hybrid(lambda process, prediction, t: 0 * process.alpha(t))

    def total(output):
        return loss.per_example(constant(output, learned=True), *batch()).sum()

    output = jnp.concatenate([EPS + 0.1, jnp.full((3, 4), 0.2)], axis=-1)
    gradient = jax.grad(total)(output)
    assert (gradient[:, :4] == 0).all() and (gradient[:, 4:] != 0).all()
    with_mean = jax.grad(lambda o: vlb().per_example(constant(o, learned=True), *batch()).sum())(output)
    assert (with_mean[:, :4] != 0).all()
    np.testing.assert_allclose(gradient[:, 4:], with_mean[:, 4:] / 1000, rtol=1e-10)


def test_hybrid_asks_the_network_once():
    calls = []
    model = constant(jnp.zeros((3, 8)), learned=True, calls=calls)
    hybrid(ONE).per_example(model, *batch())
    assert calls == [(3, 4)]


@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
def test_the_mean_of_vlb_over_all_times_is_the_bound(variance):
    learned = variance == "learned"
    t = jnp.arange(1, 201)
    x_0, eps = (jnp.asarray(np.tile(a[:1], (200, 1))) for a in (X_0, EPS))
    model = constant(jnp.full((200, 8 if learned else 4), 0.2), learned=learned)
    each = term_bpd(model, variance, x_0, eps, t - 1, t)
    rescaled = vlb(variance).per_example(model, x_0, eps, t)
    assert float(rescaled.mean()) == pytest.approx(float(each.sum()), rel=1e-12)
    np.testing.assert_allclose(vlb(variance, rescaled=False).per_example(model, x_0, eps, t), each, rtol=1e-12)


@pytest.mark.parametrize("loss", [weighted(ONE), hybrid(ONE), vlb(), vlb("beta")])
def test_every_value_and_gradient_is_finite_in_float32(loss):
    with jax.enable_x64(False):
        x_0, eps, t = batch()

        def mean(output):
            return loss.per_example(constant(output, learned=loss.outputs == 2), x_0, eps, t).mean()

        value, gradient = jax.jit(jax.value_and_grad(mean))(jnp.zeros((3, 4 * loss.outputs), jnp.float32))
    assert value.dtype == jnp.float32 and np.isfinite(value) and np.isfinite(gradient).all()
    assert (gradient != 0).all()


def test_outputs_are_two_with_a_learned_variance():
    assert weighted(ONE).outputs == 1 and hybrid(ONE).outputs == 2
    assert [vlb(variance).outputs for variance in ("beta", "posterior", "learned")] == [1, 1, 2]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda: hybrid(ONE, vlb_weight=0), "vlb_weight = 0 is not in (0, inf); improved DDPM uses 0.001."),
        (lambda: vlb("lerned"), "unknown variance 'lerned'. Did you mean 'learned'? Known: beta, learned, posterior."),
        *(
            (
                lambda loss=loss: loss.per_example(
                    constant(jnp.zeros((3, 8)), learned=True, process=RectifiedFlow(), prediction=predictions.v()),
                    *batch()[:2],
                    jnp.asarray(T / 200),
                ),
                f"loss '{name}' is a sum over noise levels, of which RectifiedFlow has none: "
                "use the loss weighted, or a process with a table of levels, such as VP.",
            )
            for name, loss in (("hybrid", hybrid(ONE)), ("vlb", vlb()))
        ),
        *(
            (
                lambda loss=loss: loss.per_example(constant(jnp.zeros((3, 4))), *batch()),
                "variance 'learned' needs a network that says one: take 'beta' or 'posterior', or train with the loss "
                "hybrid or vlb, whose networks have twice the channels.",
            )
            for loss in (hybrid(ONE), vlb())
        ),
    ],
)
def test_what_cannot_be_is_told(of, message):
    with pytest.raises(InputError) as caught:
        of()
    assert str(caught.value) == message


def test_the_uncertain_loss_is_finite_where_no_signal_is_left():
    vp, x_0 = VP(rescale.zero_terminal_snr(schedules.cosine(10))), jnp.full((2, 3), 0.5)
    model = Model(vp, predictions.v(), lambda x, t: 0 * x, uncertainty={"weight": jnp.ones(128)})
    per_example = uncertain(weights.output()).per_example(model, x_0, jnp.ones_like(x_0), jnp.array([5, 10]))
    assert jnp.isfinite(per_example).all()


def test_the_continuous_bound_needs_noise_at_t_min():
    process = ContinuousVP(continuous.linear, t_min=0.0)
    x_0 = jnp.zeros((2, 3))
    with pytest.raises(InputError, match=r"^at t_min = 0 there is no noise"):
        vdm().per_example(Model(process, predictions.eps(), lambda x, t: x), x_0, x_0, jnp.array([0.1, 0.5]))
