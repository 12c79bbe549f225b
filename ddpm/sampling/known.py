"""Sampling what is not known of an image, with a model that was never trained for it.

What is known is a projection P of the image: some pixels, the mean of its colours, the means of its blocks. After each step
x_s is replaced by x_s + P(alpha_s y + sigma_s eps - x_s), for an image y with the right P(y). Others than Gaussian
noise would not stay white under P: it is symmetric.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ddpm.diffusion.process import Process
from ddpm.rng import fold_in_all, normal
from ddpm.sampling.driver import Sampler, Step
from ddpm.shapes import Data, Images, over

Projection = Callable[[Images], Images]


class Given(NamedTuple):
    """What is known of each sample.

    image: y in [-1, 1].
    pixels: which pixels are known, where it is pixels that are.
    """

    image: Float[Array, "batch height width channels"]
    pixels: Bool[Array, "batch height width"] | None = None


class Kept(NamedTuple):
    """What samples keep.

    project: Given -> P.
    resamples: times that each step is taken; 0: x_0 alone is made to agree, of a model that was trained for it.
    """

    project: Callable[[Given], Projection]
    resamples: int = 1


def keeping(sampler: Sampler, process: Process, project: Projection, y: Images, resamples: int) -> Sampler:
    """A sampler whose samples have P(x) = P(y).

    Each step is taken `resamples` times; in between x_s is diffused back to time t, so that what is drawn comes to agree
    with what is known:  x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) eps.

    Lugmayr et al. 2022 (RePaint), Algorithm 1.
    """

    def step(denoise, x_t, t, s, keys, carry):
        def once(i, state):
            _, x_t, nfe, _ = state
            here = fold_in_all(keys, i)
            taken = sampler.step(denoise, x_t, t, s, fold_in_all(here, 0), carry)
            noise = normal(fold_in_all(here, 1), x_t.shape[1:])
            x_s = replaced(taken.x, project, over(process.alpha(s), y) * y + over(process.sigma(s), y) * noise)
            back = diffused_back(process, x_s, s, t, normal(fold_in_all(here, 2), x_t.shape[1:]))
            return x_s, back, nfe + taken.nfe, taken.carry

        like = jax.eval_shape(lambda: sampler.step(denoise, x_t, t, s, keys, carry))
        nfe, after = jnp.zeros(like.nfe.shape, jnp.int32), jax.tree.map(jnp.zeros_like, like.carry)
        x_s, _, nfe, after = jax.lax.fori_loop(0, resamples, once, (x_t, x_t, nfe, after))
        return Step(x_s, nfe, after)

    return sampler._replace(step=step, deterministic=False)


def replaced(x: Data, project: Projection, by: Data) -> Data:
    """x with P(x) = P(by)."""
    return x + project(by - x)


def diffused_back(process: Process, x_s: Data, s: jax.Array, t: jax.Array, eps: Data) -> Data:
    """x_t of q(x_t | x_s)."""
    ratio = process.alpha(t) / process.alpha(s)
    variance = process.sigma(t) ** 2 - ratio**2 * process.sigma(s) ** 2
    return over(ratio, x_s) * x_s + over(jnp.sqrt(jnp.maximum(variance, 0)), x_s) * eps
