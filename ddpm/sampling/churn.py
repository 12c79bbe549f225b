"""Noise that is added before a step and taken away by it, in which errors of earlier steps drown."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.rng import normal
from ddpm.shapes import Data, Keys, Time


@dataclasses.dataclass(frozen=True)
class ChurnSettings:
    """How much.

    Args:
      s_churn: noise over the whole run; gamma = min(s_churn / num_steps, sqrt(2) - 1) a step. 0 for none.
      s_min, s_max: the sigma_edm = sigma / alpha between which it is added.
      s_noise: its standard deviation; EDM takes slightly more than 1.
    Raises:
      InputError: one of them negative, or s_min > s_max.

    Karras et al. 2022 (EDM), Algorithm 2 and Table 5.
    """

    s_churn: float | int
    s_min: float | int
    s_max: float | int
    s_noise: float | int

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0:
                raise InputError(f"{name} = {value} must not be negative; EDM's Table 5 has what it used.")
        if self.s_min > self.s_max:
            raise InputError(f"s_min = {self.s_min} is above s_max = {self.s_max}: no step would be churned.")


def count(x_T: Data, num_steps: jax.Array) -> jax.Array:
    """The carry of a churning sampler: the number of steps."""
    return num_steps


def churned(
    churn: ChurnSettings, process: Process, x_t: Data, t: Time, keys: Keys, num_steps: jax.Array
) -> tuple[Data, jax.Array]:
    """x_t with noise added, and the time it then is at: sigma_edm grows by gamma sigma_edm, but not beyond that of T.

    x' / alpha' = x_t / alpha_t + sqrt(sigma_edm'^2 - sigma_edm^2) s_noise z

    Karras et al. 2022 (EDM), Algorithm 2, lines 4 to 6.
    """
    if churn.s_churn == 0:
        return x_t, t
    sigma_edm = jnp.exp(-process.log_snr(t) / 2)
    gamma = jnp.minimum(churn.s_churn / num_steps, math.sqrt(2) - 1)
    inside = (churn.s_min <= sigma_edm) & (sigma_edm <= churn.s_max)
    later = jnp.where(inside, process.time(process.log_snr(t) - 2 * jnp.log1p(gamma)), t)
    later = jnp.maximum(later, t).astype(jnp.result_type(float))
    sigma_later = jnp.exp(-process.log_snr(later) / 2)
    added = jnp.sqrt(jnp.maximum(sigma_later**2 - sigma_edm**2, 0)) * churn.s_noise * normal(keys, x_t.shape[1:])
    return process.alpha(later) * (x_t / process.alpha(t) + added), later
