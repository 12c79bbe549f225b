"""Attention of queries to keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attend(
    q: Float[Array, "batch queries heads dims"],
    k: Float[Array, "batch keys heads dims"],
    v: Float[Array, "batch keys heads dims"],
    mask: Bool[Array, "batch keys"] | None = None,
) -> Float[Array, "batch queries features"]:
    """softmax(q k^T / sqrt(dims)) v of each head, side by side, the softmax in float32.

    Without a mask a GPU takes JAX's own, which is faster there (`benchmarks/attention.py`); not cuDNN's, which has no jvp.
    mask: the keys there are; None for all. Where there are none, what is read is 0.

    Vaswani et al. 2017, Eq. 1.
    """
    if mask is None and jax.default_backend() == "gpu":
        return jax.nn.dot_product_attention(q, k, v, implementation="xla").reshape(*q.shape[:2], -1)
    return in_sums(q, k, v, mask)


def in_sums(
    q: Float[Array, "batch queries heads dims"],
    k: Float[Array, "batch keys heads dims"],
    v: Float[Array, "batch keys heads dims"],
    mask: Bool[Array, "batch keys"] | None = None,
) -> Float[Array, "batch queries features"]:
    """The same: the sum of the softmax divides last, where there is least to divide, and products run over images and heads as one axis."""
    batch, queries, heads, dims = q.shape
    q, k, v = (h.swapaxes(1, 2).reshape(batch * heads, -1, dims) for h in (q, k, v))
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.matmul(q * dims**-0.5, k.swapaxes(1, 2), preferred_element_type=wide)
    if mask is not None:
        mask = jnp.repeat(mask, heads, axis=0)[:, None, :]
        logits = jnp.where(mask, logits, -jnp.inf)
    most = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True, initial=jnp.finfo(wide).min))
    weights = jnp.exp(logits - most)
    read = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=wide)
    total = weights.sum(axis=-1, keepdims=True)
    h = (read / jnp.where(total, total, 1)).astype(v.dtype)
    return h.reshape(batch, heads, queries, dims).swapaxes(1, 2).reshape(batch, queries, -1)
