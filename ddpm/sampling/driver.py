"""The one sampling loop. It knows no algorithm: a Sampler is a step from t to s."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ddpm.errors import InputError
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


def time_grid(T: int, num_steps: int) -> np.ndarray:
    """num_steps + 1 integer times from T down to 0, evenly spaced ("trailing"): t_i = round(T (1 - i / num_steps)).

    Raises:
      InputError: num_steps outside 1..T.

    Lin et al. 2024 (Common diffusion noise schedules and sample steps are flawed), section 3.3.
    """
    if not 1 <= num_steps <= T:
        raise InputError(f"num_steps = {num_steps} is not in 1..{T}: a process of T = {T} levels has no more steps.")
    return np.round(np.linspace(T, 0, num_steps + 1)).astype(np.int32)


def generate(
    sampler: Sampler,
    denoise: Denoiser,
    times: Int[Array, "steps_and_1"],
    keys: Keys,
    shape: tuple[int, ...],
    *,
    keep_path: bool = False,
) -> Data | tuple[Data, Float[Array, "steps_and_1 batch *dims"]]:
    """Samples x_0 from x_T ~ N(0, I) by the sampler's steps along `times`, in one scan.

    Args:
      times: integer times from T down to 0.
      keys: one per sample; sample i depends on keys[i] alone.
      shape: of one sample, without the batch dimension.
      keep_path: return also every x_t, first x_T and last x_0.
    """
    x_T = normal(fold_in_all(keys, 0), shape)

    def transition(x_t, step):
        i, t, s = step
        x_s = sampler.step(denoise, x_t, t, s, fold_in_all(keys, i))
        return x_s, x_s if keep_path else None

    steps = (jnp.arange(1, len(times)), times[:-1], times[1:])
    x_0, path = jax.lax.scan(transition, x_T, steps)
    return (x_0, jnp.concatenate([x_T[None], path])) if keep_path else x_0
