"""Random keys: named streams, and one key per sample."""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.shapes import Key, Keys, PerExample


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


def uniforms(keys: Keys, first: jax.Array | int, total: int, *, stratified: bool) -> PerExample:
    """Numbers u in [0, 1), u_i from key i; stratified, those of a whole batch cover [0, 1) evenly.

    u_i = U_i,  stratified u_i = (first + i + U_i) / total,  U_i uniform.

    Args:
      first: place of these keys in the batch.
      total: size of the batch.

    Kingma et al. 2021 (VDM), Appendix I.1, has one U for all i: the same variance reduction.
    """
    u = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.result_type(float)))(keys)
    if not stratified:
        return u
    place = first + jnp.arange(len(u), dtype=u.dtype)
    return (
        jnp.minimum(place + u, jnp.nextafter(place + 1, jnp.zeros_like(u))) / total
    )  # place + u may round to the next
