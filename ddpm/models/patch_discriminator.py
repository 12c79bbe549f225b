"""The discriminator of patches that sharpens what an autoencoder makes."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.models.layers import group_norm
from ddpm.shapes import Images

LAYERS = 3  # that halve the resolution


class PatchGAN(nn.Module):
    """A number for each patch of 70 pixels of an image in [-1, 1], above 0 where it looks real.

    Convolutions of 4 x 4 and leaky ReLUs as in pix2pix, but with group norm: no figure of a batch to be kept.

    Args:
      channels: features of the first layer, at least 1; each further one has twice as many.

    Isola et al. 2017, appendix 6.1.2.
    """

    channels: int = 64

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch rows columns 1"]:
        def conv(h, features, stride, name):
            init = nn.initializers.normal(0.02)
            return nn.Conv(features, (4, 4), stride, "SAME", kernel_init=init, name=name)(h)

        h = nn.leaky_relu(conv(x, self.channels, 2, "conv_0"), 0.2)
        for i in range(1, LAYERS + 1):
            features = self.channels * 2**i
            h = conv(h, features, 2 if i < LAYERS else 1, f"conv_{i}")
            h = nn.leaky_relu(group_norm(features, name=f"norm_{i}")(h), 0.2)
        return conv(h, 1, 1, "conv_out").astype(jnp.float32)
