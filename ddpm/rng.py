"""Random keys: named streams, and one key per sample."""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.shapes import Key, Keys


def stream(seed: int, name: str) -> Key:
    """The root key of the stream `name`: fold_in(key(seed), crc32(name)).

    A key of step k is `jax.random.fold_in(stream(seed, name), k)`. Nothing random is kept in the training
    state, so a resumed run draws what the uninterrupted one would have drawn, and a new stream changes no old one.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def per_index(key: Key, indices: jax.Array) -> Keys:
    """One key per index: what example i draws depends on i alone, not on its batch or device."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def fold_in_all(keys: Keys, number: jax.Array | int) -> Keys:
    """`fold_in(key, number)` for each key."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "batch *shape"]:
    """Unit Gaussian noise [batch, *shape], row i from key i."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.result_type(float)))(keys)
