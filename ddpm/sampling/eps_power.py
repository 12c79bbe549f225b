"""What ancestral sampling with the optimal variance has to know of the data: how much of the noise a model sees in them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from ddpm.condition import NOTHING, Condition
from ddpm.data.images import Dataset
from ddpm.data.pipeline import Examples
from ddpm.data.pixels import to_images
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import diffuse
from ddpm.rng import fold_in_all, normal, per_index, stream
from ddpm.shapes import Images, PerTime, Pixels, Time


def measured(model: Model, pixels: Pixels | Images, times: Real[Array, "steps"]) -> Float[Array, "steps"]:
    """The mean over images and their dimensions of eps_hat(x_t, t)^2 at each time; at t = 0, where nothing is asked, 1.

    Bao et al. 2022 (Analytic-DPM), section 3.1: their Gamma is this over sigma_t^2.
    """
    x_0, keys = to_images(pixels), per_index(stream(0, "eps_power"), jnp.arange(len(pixels)))

    def at(time):
        i, t = time
        t = jnp.maximum(t, jnp.asarray(model.process.t_min, t.dtype))
        eps = normal(fold_in_all(keys, i), x_0.shape[1:])
        return jnp.mean(model(diffuse(model.process, x_0, t, eps), t).eps ** 2)

    return jax.lax.map(at, (jnp.arange(len(times)), times))


def interpolated(times: Real[Array, "steps"], values: Float[Array, "steps"]) -> Callable[[Time], PerTime]:
    """t -> the value there, linear between falling times."""
    return lambda t: jnp.interp(t, times[::-1].astype(values.dtype), values[::-1])


def some_examples(dataset: Dataset, conditions: Condition = NOTHING, num: int = 128) -> Examples:
    """`num` images, evenly over the set, and what a model is told of them, of rows as for `feed`."""
    chosen = np.linspace(0, len(dataset.images) - 1, min(num, len(dataset.images))).round().astype(int).tolist()
    return jax.tree.map(lambda rows: np.stack([rows[i] for i in chosen]), Examples(dataset.images, conditions))
