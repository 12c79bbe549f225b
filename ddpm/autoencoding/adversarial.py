"""The loss of a discriminator, that of who is to deceive it, and how much the latter is heard."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Scores = Float[Array, "*dims"]


def discriminator_loss(real: Scores, made: Scores) -> Float[Array, ""]:
    """The hinge loss (mean max(0, 1 - D(x)) + mean max(0, 1 + D(x_hat))) / 2.

    Lim and Ye 2017; Esser et al. 2021 (VQGAN) halve it.
    """
    return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + made))) / 2


def generator_loss(made: Scores) -> Float[Array, ""]:
    """-mean D(x_hat)."""
    return -jnp.mean(made)


def adaptive_weight(of_reconstruction: Any, of_generator: Any) -> Float[Array, ""]:
    """|grad L_rec| / (|grad L_gan| + 1e-6), at most 1e4: so much makes the second as strong as the first.

    Args:
      of_reconstruction, of_generator: gradients of the two losses at the decoder's last layer.

    Esser et al. 2021 (VQGAN), Eq. 7; the limit is that of its code.
    """
    ratio = optax.tree.norm(of_reconstruction) / (optax.tree.norm(of_generator) + 1e-6)
    return jax.lax.stop_gradient(jnp.minimum(ratio, 1e4))
