"""Classifier guidance: a model steered uphill on log p(y | x_t), of classifiers or of any function of x0_hat."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm.diffusion.model import Estimate
from ddpm.diffusion.process import Process
from ddpm.shapes import Data, PerExample, Time, over

LogProb = Callable[[Data, Time, Data], PerExample]


class Steered(NamedTuple):
    """eps_hat = eps_hat_model - sigma_t sum_i s_i grad_{x_t} log p_i(y | x_t): the score of p(x_t) prod_i p_i(y | x_t)^s_i.

    The gradient of a function of x0_hat goes through the network, that of a classifier of x_t does not. Without signal,
    where x_t says nothing of y, nothing is added.

    denoise: the model, guided or not.
    process: the forward process.
    log_probs: (x_t, t, x0_hat) -> log p_i(y | x_t) of each sample, but for a constant.
    scales: s_i, as arrays, so that others do not compile anew.

    Dhariwal and Nichol 2021, Eq. 14 and Algorithm 2; of x0_hat: Chung et al. 2023 (DPS), Bansal et al. 2023.
    """

    denoise: Callable[[Data, Time], Estimate]
    process: Process
    log_probs: Sequence[LogProb]
    scales: Sequence[jax.Array | float | int] | jax.Array

    def __call__(self, x_t: Data, t: Time) -> Estimate:
        """As a Model's."""

        def log_prob(x_t):
            estimate = self.denoise(x_t, t)
            each = [s * f(x_t, t, estimate.x0) for s, f in zip(self.scales, self.log_probs, strict=True)]
            return jnp.sum(sum(each)), estimate

        gradient, estimate = jax.grad(log_prob, has_aux=True)(x_t)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        shift = jnp.where(alpha > 0, sigma**2 / jnp.where(alpha > 0, alpha, 1), 0)
        return estimate._replace(
            x0=estimate.x0 + over(shift, x_t) * gradient,
            eps=estimate.eps - over(jnp.where(alpha > 0, sigma, 0), x_t) * gradient,
        )
