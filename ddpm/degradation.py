"""What a degradation is: how images are made worse; those there are stand in degradations.py."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm.condition import Condition
from ddpm.shapes import Images, Keys


class Degradation(NamedTuple):
    """How images are made worse.

    of: (x_0, keys) -> Condition of each; in training.
    given: (images in [-1, 1], which pixels are known or None, noise, keys) -> Condition; in sampling.
    size: (height, width) of the images it makes worse -> size of those it is given.
    needs_known: it is also given which pixels are known.
    """

    of: Callable[[Images, Keys], Condition]
    given: Callable[..., Condition]
    size: Callable[[tuple[int, int]], tuple[int, int]] = lambda size: size
    needs_known: bool = False


def rectangle(key: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A random rectangle of an image, True inside [height, width]."""
    inside = []
    for side, key_of_side in zip(size, jax.random.split(key), strict=True):
        u, v = jax.random.uniform(key_of_side, (2,))
        length = jnp.round(side * (0.25 + 0.75 * u))
        first = jnp.floor(v * (side - length + 1))
        place = jnp.arange(side)
        inside.append((place >= first) & (place < first + length))
    return inside[0][:, None] & inside[1][None, :]


def block_means(x: Images | np.ndarray, factor: int) -> jax.Array:
    """Means of factor x factor pixels."""
    batch, height, width, channels = x.shape
    return jnp.asarray(x).reshape(batch, height // factor, factor, width // factor, factor, channels).mean(axis=(2, 4))
