"""The one sampling loop. It knows no algorithm: a Sampler is a step from t to s."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ddpm.rng import fold_in_all, normal
from ddpm.sampling.denoise import Denoiser
from ddpm.shapes import Data, Keys


class Sampler(NamedTuple):
    """An algorithm: one transition, its order of convergence, and what it costs.

    step: (denoise, x_t, t, s, keys) -> x_s, for times s < t and one key per sample.
    order: global order of convergence in the step size; of a stochastic one, in distribution (weak order).
    nfe: network evaluations a step.
    """

    step: Callable
    order: int
    nfe: int


def generate(
    sampler: Sampler,
    denoise: Denoiser,
    times: Real[Array, "steps_and_1"],
    keys: Keys,
    shape: tuple[int, ...],
    *,
    prior_scale: float = 1.0,
    keep_path: bool = False,
) -> Data | tuple[Data, Float[Array, "steps_and_1 batch *dims"]]:
    """Samples x_0 from x_T ~ N(0, prior_scale^2 I) by the sampler's steps along `times`, in one scan.

    Args:
      times: from T down to 0, as of grids.py.
      keys: one per sample; sample i depends on keys[i] alone.
      shape: of one sample, without the batch dimension.
      keep_path: return also every x_t, first x_T and last x_0.
    """
    x_T = prior_scale * normal(fold_in_all(keys, 0), shape)

    def transition(x_t, step):
        i, t, s = step
        x_s = sampler.step(denoise, x_t, t, s, fold_in_all(keys, i))
        return x_s, x_s if keep_path else None

    steps = (jnp.arange(1, len(times)), times[:-1], times[1:])
    x_0, path = jax.lax.scan(transition, x_T, steps)
    return (x_0, jnp.concatenate([x_T[None], path])) if keep_path else x_0
