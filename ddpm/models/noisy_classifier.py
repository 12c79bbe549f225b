"""The classifier of noised images that guides a diffusion model: the U-Net's way down, and attention pooling."""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError
from ddpm.models.layers import DEFAULT_INIT, Downsample, ResidualBlock, SelfAttention, conv, group_norm, heads_of
from ddpm.models.told import sinusoidal
from ddpm.shapes import Images

FLOAT32 = jnp.dtype("float32")


class NoisyClassifier(nn.Module):
    """Noised image and time to logits [batch, out_channels].

    Args:
      out_channels: classes.
      as_published: attention in the middle, and the pool itself says the classes, as in the weights of ADM.
      channels and all others: as of the U-Net.
    Raises:
      InputError: an image whose size the levels do not divide, or heads that do not divide the features.

    Dhariwal and Nichol 2021, section 4 and appendix H.
    """

    classifies: ClassVar[bool] = True  # what comes out is no image

    out_channels: int
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = (16, 8)
    num_heads: int = 4
    dropout: float = 0.0
    scale_shift: bool = True
    head_channels: int = 0
    norm_groups: int = 0
    norm_eps: float = 1e-6
    downsample_padding: int = 0
    resblock_updown: bool = False
    freq_shift: int = 1
    as_published: bool = False

    @nn.compact
    def __call__(
        self, x: Images, t: Real[Array, "batch"], condition: Condition = NOTHING, *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        halvings = len(self.channel_mult) - 1
        if x.shape[1] % 2**halvings or x.shape[2] % 2**halvings:
            raise InputError(
                f"images of {x.shape[1]} x {x.shape[2]} cannot be halved {halvings} times, as the {halvings + 1} levels of "
                f"channel_mult = {tuple(self.channel_mult)} need: use fewer levels."
            )
        width = 4 * self.channels
        time = nn.Dense(width, kernel_init=DEFAULT_INIT, name="time_1")(sinusoidal(t, self.channels, self.freq_shift))
        time = nn.Dense(width, kernel_init=DEFAULT_INIT, name="time_2")(nn.silu(time))

        norm = (self.norm_groups, self.norm_eps)

        def residual(h, features, name, resample=""):
            block = ResidualBlock(features, self.dropout, self.scale_shift, FLOAT32, *norm, resample, name=name)
            return block(h, time, train)

        def attention(h, name):
            heads = heads_of(h.shape[-1], self.num_heads, self.head_channels)
            return SelfAttention(heads, FLOAT32, *norm, name=f"{name}_attention")(h)

        h = conv(self.channels, name="conv_in")(x)
        for level, mult in enumerate(self.channel_mult):
            if level > 0:
                name = f"down_{level}_downsample"
                if self.resblock_updown:
                    h = residual(h, h.shape[-1], name, "down")
                else:
                    h = Downsample(FLOAT32, self.downsample_padding, name=name)(h)
            for i in range(self.num_res_blocks):
                h = residual(h, self.channels * mult, f"down_{level}_{i}")
                if h.shape[1] in self.attention_resolutions:
                    h = attention(h, f"down_{level}_{i}")
        if self.as_published:
            h = residual(attention(residual(h, h.shape[-1], "mid_0"), "mid"), h.shape[-1], "mid_1")
        else:
            h = residual(h, h.shape[-1], "mid")
        h = nn.silu(group_norm(h.shape[-1], *norm, name="norm_out")(h))
        heads = heads_of(h.shape[-1], self.num_heads, self.head_channels)
        if self.as_published:
            return AttentionPool(heads, self.out_channels, name="pool")(h)
        return nn.Dense(self.out_channels, name="classes")(AttentionPool(heads, h.shape[-1], name="pool")(h))


class AttentionPool(nn.Module):
    """One token, the mean of all, attends to itself and to every pixel, each with its own learned position.

    Radford et al. 2021 (CLIP), section 2.4.
    """

    num_heads: int
    features: int

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch features"]:
        batch, _, _, channels = x.shape
        tokens = x.reshape(batch, -1, channels)
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        place = nn.initializers.normal(channels**-0.5)
        tokens += self.param("position", place, tokens.shape[1:])[None]

        def heads(name, of):
            return nn.Dense(channels, name=name)(of).reshape(batch, -1, self.num_heads, channels // self.num_heads)

        pooled = jax.nn.dot_product_attention(
            heads("query", tokens[:, :1]), heads("key", tokens), heads("value", tokens)
        )
        return nn.Dense(self.features, name="out")(pooled.reshape(batch, channels))
