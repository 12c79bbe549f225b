"""The tiny autoencoders of the latent spaces of Stable Diffusion and FLUX: convolutions only."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.shapes import Images

Latents = Float[Array, "batch rows columns features"]

STAGES = 3  # each halves the resolution


class Taesd(nn.Module):
    """Images in [0, 1] to latents an eighth of their size, and back. Layers bear the numbers they have in published files.

    Args:
      latent_channels: 4 of Stable Diffusion 1, 2 and XL, 16 of Stable Diffusion 3 and FLUX.1, 32 of FLUX.2.
      channels: of every layer between.
      pooled: blocks at the lowest resolution first see means and variances over the image, as in TAEF2.

    Bohan 2023 (TAESD), https://github.com/madebyollin/taesd.
    """

    latent_channels: int = 4
    channels: int = 64
    pooled: bool = False

    def setup(self):
        self.encoder = Encoder(self.latent_channels, self.channels, self.pooled)
        self.decoder = Decoder(self.channels, self.pooled)

    def __call__(self, x: Images) -> Images:
        return self.decode(self.encode(x))

    def encode(self, x: Images) -> Latents:
        """Latents [batch, height / 8, width / 8, latent_channels] of images in [0, 1]."""
        return self.encoder(x)

    def decode(self, z: Latents) -> Images:
        """Images about [0, 1] of latents."""
        return self.decoder(z)


class Encoder(nn.Module):
    """Three halvings by convolutions of stride 2."""

    latent_channels: int
    channels: int
    pooled: bool

    @nn.compact
    def __call__(self, x: Images) -> Latents:
        h = Block(self.channels, name="1")(_conv(self.channels, "0")(x))
        for stage in range(STAGES):
            first = 2 + 4 * stage
            h = _conv(self.channels, f"{first}", use_bias=False, strides=2)(h)
            for i in range(first + 1, first + 4):
                h = Block(self.channels, self.pooled and stage == STAGES - 1, name=f"{i}")(h)
        return _conv(self.latent_channels, "14")(h)


class Decoder(nn.Module):
    """Three doublings by repeated pixels; latents are first bent into (-3, 3)."""

    channels: int
    pooled: bool

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        h = nn.relu(_conv(self.channels, "1")(3 * jnp.tanh(z / 3)))
        for stage in range(STAGES):
            first = 3 + 5 * stage
            for i in range(first, first + 3):
                h = Block(self.channels, self.pooled and stage == 0, name=f"{i}")(h)
            h = h.repeat(2, axis=1).repeat(2, axis=2)
            h = _conv(self.channels, f"{first + 4}", use_bias=False)(h)
        return _conv(3, "19")(Block(self.channels, name="18")(h))


class Block(nn.Module):
    """relu(x + three convolutions of x); with `pooled`, x is first joined by W relu(GroupNorm(V x))."""

    channels: int
    pooled: bool = False

    @nn.compact
    def __call__(self, x: Latents) -> Latents:
        if self.pooled:
            h = nn.Conv(4 * self.channels, (1, 1), use_bias=False, name="pool_0")(x)
            h = nn.relu(nn.GroupNorm(4, epsilon=1e-5, name="pool_1")(h))
            x = x + nn.Conv(self.channels, (1, 1), use_bias=False, name="pool_3")(h)
        h = nn.relu(_conv(self.channels, "conv_0")(x))
        h = nn.relu(_conv(self.channels, "conv_2")(h))
        return nn.relu(x + _conv(self.channels, "conv_4")(h))


def _conv(features: int, name: str, *, use_bias: bool = True, strides: int = 1) -> nn.Conv:
    padding = ((1, 1), (1, 1))  # of PyTorch, also where the stride is 2
    return nn.Conv(features, (3, 3), strides, padding, use_bias=use_bias, name=name)
