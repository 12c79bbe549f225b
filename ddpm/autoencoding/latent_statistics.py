"""Mean and deviation of latents, averaged over the batches of a training."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Statistics = dict[str, Float[Array, "channels"]]


def moved(statistics: Statistics, z: Float[Array, "*dims channels"], decay: jax.Array | float) -> Statistics:
    """The statistics a batch later: the moments E[z], E[z^2] of each channel become decay m + (1 - decay) m(batch).

    Rombach et al. 2022, appendix G, take the deviation of the first batch, of all channels at once.

    Args:
      statistics: 'mean' and 'std' [channels].
      z: latents, channels last.
      decay: 0..1.
    """
    mean, axes = statistics["mean"], tuple(range(z.ndim - 1))
    # About the old mean: E[z^2] - E[z]^2 would lose its digits where the mean is large.
    apart = z - mean.reshape((1,) * len(axes) + (-1,))
    first = (1 - decay) * jnp.mean(apart, axis=axes)
    second = decay * statistics["std"] ** 2 + (1 - decay) * jnp.mean(apart**2, axis=axes)
    return {"mean": mean + first, "std": jnp.sqrt(jnp.maximum(second - first**2, 0))}
