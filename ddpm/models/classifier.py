"""A small convolutional classifier: the features of figures where no pretrained network is at hand."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.models.layers import group_norm
from ddpm.shapes import Images


class SmallClassifier(nn.Module):
    """Images to ('pool' [batch, widths[-1]], 'logits' [batch, classes]): 3 x 3 convolutions, each halving the image but the first.

    Args:
      classes: number of classes.
      widths: channels of each convolution, multiples of 4.
    """

    classes: int
    widths: Sequence[int] = (32, 64, 128)

    @nn.compact
    def __call__(self, x: Images) -> dict[str, Float[Array, "batch dims"]]:
        for i, width in enumerate(self.widths):
            x = nn.Conv(width, (3, 3), strides=1 if i == 0 else 2, name=f"conv_{i}")(x)
            x = nn.silu(group_norm(width, name=f"norm_{i}")(x))
        pool = jnp.mean(x, axis=(1, 2))
        return {"pool": pool, "logits": nn.Dense(self.classes, name="classes")(pool)}
