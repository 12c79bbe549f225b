"""Names for array shapes. They document; only the tests check them (jaxtyping's import hook)."""

import jax
from jaxtyping import Array, Float, Real, UInt8
from jaxtyping import Key as KeyArray

Data = Float[Array, "batch *dims"]  # x_0, x_t, eps: any data, images are [batch, height, width, channels]
Images = Float[Array, "batch height width channels"]
Pixels = UInt8[Array, "batch height width channels"]
Time = int | float | Real[Array, ""] | Real[Array, "batch"]  # one time for all, or one per example
PerTime = Float[Array, ""] | Float[Array, "batch"]  # a coefficient at a Time
PerExample = Float[Array, "batch"]
Key = KeyArray[Array, ""]
Keys = KeyArray[Array, "batch"]


def over(coefficient: jax.Array, x: jax.Array) -> jax.Array:
    """A coefficient per example ([batch] or a scalar), shaped to multiply x [batch, *dims]."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim) if coefficient.ndim else ())
