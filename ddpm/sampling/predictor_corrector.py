"""The predictor-corrector sampler of score SDE."""

import jax
import jax.numpy as jnp

from ddpm.diffusion.process import Process, transition_variance
from ddpm.errors import check_at_least, check_inside
from ddpm.rng import fold_in_all, normal
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.euler_maruyama import check_sde


def predictor_corrector(process: Process, *, snr: float | int = 0.16, corrections: int = 1) -> Sampler:
    """Langevin steps at t, then the reverse-diffusion step from t to s, without noise in the step to t = 0.

    corrector: x <- x + e score + sqrt(2 e) z,  e = 2 a (snr |z| / |score|)^2,  a = (alpha_t / alpha_s)^2
    predictor: x_s = (2 - alpha_t / alpha_s) x_t + b score + sqrt(b) z,  b the variance of q(x_t | x_s)

    The corrector comes first, as in the authors' code. Its steps do not become smaller with those of the grid, so that only
    without corrections the error of the distribution falls with the number of steps, at order 1.
    The norms are of one sample, where the authors' code takes their mean over the batch: a sample must not depend on the
    others.

    Args:
      snr: signal-to-noise ratio of the corrector, positive; the paper has 0.16 for VE and VP on CIFAR-10.
      corrections: Langevin steps before each prediction; a step takes 1 + corrections evaluations.
    Raises:
      InputError: one of them out of range, or a process of levels.

    Song et al. 2021 (score SDE), Algorithms 2 to 5, Eq. 46.
    """
    check_sde(process, "predictor_corrector")
    check_inside(0, jnp.inf, usual="score SDE uses 0.16", snr=snr)
    check_at_least(0, corrections=corrections)

    def step(denoise, x_t, t, s, keys, carry=()):
        def score(x):
            return -denoise(x, t).eps / process.sigma(t)

        ratio = process.alpha(t) / process.alpha(s)

        def correct(i, x):
            z, slope = normal(fold_in_all(keys, i + 1), x_t.shape[1:]), score(x)
            size = 2 * ratio**2 * (snr * _norm(z) / jnp.maximum(_norm(slope), jnp.finfo(slope.dtype).tiny)) ** 2
            return x + size * slope + jnp.sqrt(2 * size) * z

        x_t = jax.lax.fori_loop(0, corrections, correct, x_t)
        variance = transition_variance(process, s, t)
        x_s = (2 - ratio) * x_t + variance * score(x_t)
        noise = jnp.sqrt(variance) * normal(fold_in_all(keys, 0), x_t.shape[1:])
        return Step(x_s + jnp.where(s > 0, noise, 0), 1 + corrections)

    return Sampler(step, 0 if corrections else 1)


def _norm(x):
    return jnp.sqrt((x**2).sum(axis=tuple(range(1, x.ndim)), keepdims=True))
