"""The one sampling loop. It knows no algorithm: a Sampler is a step from t to s."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from ddpm.rng import fold_in_all, normal
from ddpm.sampling.denoise import Denoiser
from ddpm.shapes import Data, Keys


class Step(NamedTuple):
    """What one transition comes to.

    x: x_s.
    nfe: network evaluations it took, one number or one per sample.
    carry: what the next step remembers.
    """

    x: Data
    nfe: int | Int[Array, ""] | Int[Array, "batch"] = 1
    carry: Any = ()


class Sampler(NamedTuple):
    """An algorithm.

    step: (denoise, x_t, t, s, keys, carry) -> Step, from time t to time s with one key per sample.
    order: global order of convergence in the step size; of a stochastic one, in distribution (weak order); 0 for none.
    start: (x_T, num_steps) -> the first carry.
    deterministic: it draws no noise, so that it also leads from data to noise.
    """

    step: Callable[..., Step]
    order: int
    start: Callable[[Data, Int[Array, ""]], Any] = lambda x_T, num_steps: ()
    deterministic: bool = False


class Run(NamedTuple):
    """Where the steps have led.

    x: the last x_s.
    nfe: network evaluations of each sample.
    path: every x_t, first and last included, where it was asked for.
    """

    x: Data
    nfe: Int[Array, "batch"]
    path: Float[Array, "steps_and_1 batch *dims"] | None


def generate(
    sampler: Sampler,
    denoise: Denoiser,
    times: Real[Array, "steps_and_1"],
    keys: Keys,
    shape: tuple[int, ...],
    *,
    prior_scale: float | int | Float[Array, ""] = 1.0,
    num_steps: int | Int[Array, ""] | None = None,
    keep_path: bool = False,
) -> Run:
    """Samples x_0 from x_T ~ N(0, prior_scale^2 I) by `solve`.

    Args:
      keys: one per sample; sample i depends on keys[i] alone.
      shape: of one sample, without the batch dimension.
    """
    x_T = prior_scale * normal(fold_in_all(keys, 0), shape)
    return solve(sampler, denoise, x_T, times, keys, num_steps=num_steps, keep_path=keep_path)


def solve(
    sampler: Sampler,
    denoise: Denoiser,
    x: Data,
    times: Real[Array, "steps_and_1"],
    keys: Keys,
    *,
    num_steps: int | Int[Array, ""] | None = None,
    keep_path: bool = False,
) -> Run:
    """Takes x from times[0] to times[num_steps] by the sampler's steps, in one loop.

    Args:
      times: as of grids.py; a deterministic sampler encodes along rising ones.
      keys: one per sample.
      num_steps: all of `times` if None; traced, and `times` padded, so that one program serves any number of steps.
      keep_path: return also every x_t.
    """
    num_steps = jnp.asarray(len(times) - 1 if num_steps is None else num_steps)

    def transition(i, state):
        x, carry, nfe, path = state
        step = sampler.step(denoise, x, times[i], times[i + 1], fold_in_all(keys, i + 1), carry)
        return step.x, step.carry, nfe + step.nfe, path.at[i + 1].set(step.x) if keep_path else path

    path = jnp.zeros((len(times), *x.shape), x.dtype).at[0].set(x) if keep_path else None
    state = (x, sampler.start(x, num_steps), jnp.zeros(len(x), jnp.int32), path)
    x, _, nfe, path = jax.lax.fori_loop(0, num_steps, transition, state)
    return Run(x, nfe, path)
