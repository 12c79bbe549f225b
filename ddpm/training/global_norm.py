"""The norm of a gradient, and clipping by it, as optax has them but with a reduction for all small arrays together.

optax reduces each array by itself, and each reduction is a kernel to trace, compile and load: hundreds for a U-Net. Arrays that are
not SMALL take longer to copy than a reduction is worth, and may be split over devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ddpm.sharding import SMALL


def global_norm(tree: Any) -> jax.Array:
    """The norm of all elements together, sqrt(sum x^2), []."""
    leaves = jax.tree.leaves(tree)
    parts = [leaf for leaf in leaves if leaf.size >= SMALL]
    small = [leaf.ravel() for leaf in leaves if leaf.size < SMALL]
    if small:
        parts.append(jnp.concatenate(small))
    return jnp.sqrt(sum(jnp.sum(jnp.square(part)) for part in parts))


def clip_by_global_norm(max_norm: float | int) -> optax.GradientTransformation:
    """Multiplies a gradient g by min(1, max_norm / |g|). Pascanu et al. 2013, Algorithm 1."""

    def update(grads, state, params=None):
        scale = jnp.minimum(1, max_norm / global_norm(grads))
        return jax.tree.map(lambda g: scale * g, grads), state

    return optax.GradientTransformation(optax.init_empty_state, update)
