import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm.diffusion.uncertainty import balanced, init, log_uncertainty
from ddpm.errors import InputError


def test_it_starts_as_if_it_were_not_there():
    c = jnp.linspace(-1.5, 1.0, 7)
    np.testing.assert_array_equal(log_uncertainty(init(), c), 0)
    loss = jnp.arange(7.0)
    np.testing.assert_array_equal(balanced(loss, log_uncertainty(init(), c)), loss)
    assert init(features=32)["weight"].shape == (32,)


def test_features_are_waves_of_variance_one_that_are_the_same_in_every_run(x64):
    # sqrt(2) cos(omega c + phase) with omega ~ 2 pi N(0, 1): cov[u(c), u(c')] = exp(-(2 pi (c - c'))^2 / 2) for weights N(0, 1).
    weight = jax.random.normal(jax.random.key(0), (512, 2000))
    c = jnp.array([0.0, 0.1, 1.0])
    u = jax.vmap(lambda w: log_uncertainty({"weight": w}, c), in_axes=1)(weight)
    distance = 2 * np.pi * np.abs(np.subtract.outer(np.asarray(c), np.asarray(c)))
    np.testing.assert_allclose(np.cov(u.T), np.exp(-(distance**2) / 2), atol=0.15)
    np.testing.assert_allclose(log_uncertainty({"weight": weight[:, 0]}, c), u[0], rtol=1e-12)


def test_training_it_finds_the_log_of_the_mean_loss_at_each_noise():
    c = jnp.linspace(-1.0, 1.0, 64)
    mean = jnp.exp(jnp.sin(2 * c) - 1)
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(_, carry):
        params, state = carry
        objective = lambda p: balanced(mean, log_uncertainty(p, c)).mean()  # noqa: E731
        updates, state = optimizer.update(jax.grad(objective)(params), state)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, 2000, step, (init(), optimizer.init(init())))
    np.testing.assert_allclose(log_uncertainty(params, c), jnp.log(mean), atol=0.05)


@pytest.mark.parametrize("mean", [0.01, 1.0, 30.0])
def test_the_loss_is_least_at_the_log_of_the_mean_and_its_scale_then_one(mean):
    losses = mean * jnp.array([0.5, 1.0, 1.5])
    objective = lambda u: balanced(losses, jnp.full(3, u)).mean()  # noqa: E731
    u = float(np.log(mean))
    assert abs(float(jax.grad(objective)(u))) < 1e-5 and float(jax.hessian(objective)(u)) == pytest.approx(1, rel=1e-5)
    at_least = jax.grad(lambda scale: balanced(losses * scale, jnp.full(3, u)).mean())(1.0)
    assert float(at_least) == pytest.approx(1, rel=1e-5)  # every noise's loss has the same weight: in relative terms


def test_bad_arguments_are_named():
    with pytest.raises(InputError) as caught:
        init(features=0)
    assert str(caught.value) == "features = 0 must be at least 1."
