"""The convolutional encoder and decoder that latent diffusion's autoencoders share."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.errors import InputError, check_at_least
from ddpm.models.layers import (
    Downsample,
    Features,
    ResidualBlock,
    SelfAttention,
    Upsample,
    check_dtype,
    conv,
    group_norm,
)
from ddpm.shapes import Images, PerExample

Latents = Float[Array, "batch rows columns latents"]


class Code(NamedTuple):
    """Images as an autoencoder keeps them.

    z: the latents that are decoded, noise and rounding included.
    penalty: what is added to the loss of each image for them.
    rate: what each image costs, in bits/dim of its pixels.
    figures: more that is to be known, by name.
    """

    z: Latents
    penalty: PerExample
    rate: PerExample
    figures: dict[str, jax.Array]


class Convolutional(nn.Module):
    """Images in [-1, 1] to a map of codes 2^(levels - 1) times smaller, and back. A subclass says what a code is.

    Args:
      image_channels: of the images.
      channels: features at full resolution.
      channel_mult: features of each level as a multiple of `channels`; from one to the next the resolution halves.
      num_res_blocks: residual blocks a level of the encoder; the decoder has one more.
      latent_channels: of the latents.
      norm_groups: of the norms; 0 for 32, or the most that leave 4 channels to a group.
      quant_conv: a convolution of one pixel at either side of the code: Stable Diffusion 3 and FLUX.1 have none.
      dtype: of activations, 'float32' or 'bfloat16'; parameters, norms, softmax and images stay float32.
    Raises:
      InputError: an argument out of its range, or an image whose sides the levels do not divide.

    Esser et al. 2021 (VQGAN), appendix A and table 7; Rombach et al. 2022, appendix G.
    """

    image_channels: int
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    latent_channels: int = 4
    norm_groups: int = 0
    quant_conv: bool = True
    dtype: str = "float32"

    of_code = 1  # channels of a code relative to those of the latents

    def setup(self):
        self._check()
        common = [self.num_res_blocks, self.norm_groups, jnp.dtype(self.dtype)]
        features = [self.channels * mult for mult in self.channel_mult]
        code = self.of_code * self.latent_channels
        self.encoder = Encoder(code, features, *common)
        self.decoder = Decoder(features, *common)
        self.out = conv(self.image_channels, name="out")
        if self.quant_conv:
            self.quant = conv(code, 1, name="quant")
            self.post_quant = conv(self.latent_channels, 1, name="post_quant")

    @property
    def factor(self) -> int:
        """Pixels of a side that a code stands for."""
        return 2 ** (len(self.channel_mult) - 1)

    def to_code(self, x: Images) -> Latents:
        """The map of codes of images."""
        if x.shape[1] % self.factor or x.shape[2] % self.factor:
            raise InputError(
                f"images of {x.shape[1]} x {x.shape[2]} are not divided by the {self.factor} pixels that "
                f"{len(self.channel_mult)} levels make one: resize them, or give channel_mult another length."
            )
        h = self.encoder(x)
        return self.quant(h) if self.quant_conv else h

    def features(self, z: Latents) -> Features:
        """What the decoder's last layer sees of latents."""
        return self.decoder(self.post_quant(z) if self.quant_conv else z)

    def image(self, h: Features) -> Images:
        """The decoder's last layer, of `features`."""
        return self.out(h).astype(jnp.float32)

    def decode(self, z: Latents) -> Images:
        """Images about [-1, 1] of latents."""
        return self.image(self.features(z))

    def _check(self):
        check_at_least(
            1, channels=self.channels, num_res_blocks=self.num_res_blocks, latent_channels=self.latent_channels
        )
        check_dtype(**{"autoencoder dtype": self.dtype})
        if not self.channel_mult or any(not isinstance(mult, int) or mult < 1 for mult in self.channel_mult):
            raise InputError(
                f"channel_mult = {tuple(self.channel_mult)} must be positive integers, one a level, as (1, 2, 4, 4)."
            )
        if self.norm_groups and any(self.channels * mult % self.norm_groups for mult in self.channel_mult):
            raise InputError(
                f"norm_groups = {self.norm_groups} does not divide {self.channels} times {tuple(self.channel_mult)} channels."
            )


class Encoder(nn.Module):
    """A convolution, residual blocks and a halving a level, attention in the middle of the last; `features` of each level."""

    out_channels: int
    features: Sequence[int]
    num_res_blocks: int
    norm_groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Images) -> Latents:
        h = conv(self.features[0], dtype=self.dtype, name="conv_in")(x)
        for level, features in enumerate(self.features):
            if level > 0:
                h = Downsample(self.dtype, name=f"{level}_downsample")(h)
            for i in range(self.num_res_blocks):
                h = _block(self, features, f"{level}_{i}")(h, None, False)
        h = nn.silu(group_norm(h.shape[-1], self.norm_groups, name="norm_out")(_middle(self, h)))
        return conv(self.out_channels, name="conv_out")(h)


class Decoder(nn.Module):
    """The encoder's way back, levels numbered as there; it ends before the last convolution."""

    features: Sequence[int]
    num_res_blocks: int
    norm_groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z: Latents) -> Features:
        h = _middle(self, conv(self.features[-1], dtype=self.dtype, name="conv_in")(z))
        for level in reversed(range(len(self.features))):
            for i in range(self.num_res_blocks + 1):
                h = _block(self, self.features[level], f"{level}_{i}")(h, None, False)
            if level > 0:
                h = Upsample(self.dtype, name=f"{level}_upsample")(h)
        return nn.silu(group_norm(h.shape[-1], self.norm_groups, name="norm_out")(h))


def _block(of, features, name):
    return ResidualBlock(features, 0.0, False, of.dtype, of.norm_groups, name=name)


def _middle(of, h):
    h = _block(of, h.shape[-1], "mid_0")(h, None, False)
    h = SelfAttention(1, of.dtype, of.norm_groups, name="mid_attention")(h)
    return _block(of, h.shape[-1], "mid_1")(h, None, False)
