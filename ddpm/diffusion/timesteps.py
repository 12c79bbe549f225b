"""How the time of a training example is drawn."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ddpm.shapes import Keys


def uniform(keys: Keys, T: int) -> Int[Array, "batch"]:
    """t uniform in {1, ..., T}, one for each key.

    Ho et al. 2020, Algorithm 1, line 3.
    """
    return jax.vmap(lambda key: jax.random.randint(key, (), 1, T + 1, jnp.int32))(keys)
