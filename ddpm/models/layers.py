"""Layers the backbones are made of. Parameters, norms and softmax are float32; `dtype` is that of the rest."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ddpm.shapes import Images

Features = Float[Array, "batch height width features"]

# DDPM's initialisers: uniform of variance 1 / fan_avg; zero where a branch is to start as nothing.
DEFAULT_INIT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
ZERO_INIT = nn.initializers.zeros_init()


def sinusoidal(t: Real[Array, "batch"], channels: int) -> Float[Array, "batch channels"]:
    """The sinusoidal embedding of a time: [sin(t w_0), ..., cos(t w_0), ...], w_i = 10000^(-i / (channels / 2 - 1)).

    Args:
      t: times [batch].
      channels: width of the embedding, even and at least 4.

    Vaswani et al. 2017, section 3.5, in the order and spacing of DDPM's code.
    """
    half = channels // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = t.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def conv(
    features: int, kernel: int = 3, *, stride: int = 1, init=DEFAULT_INIT, dtype=jnp.float32, name: str
) -> nn.Conv:
    """A convolution with DDPM's initialiser; `stride` 2 pads below and to the right, as TensorFlow's SAME."""
    return nn.Conv(features, (kernel, kernel), strides=stride, padding="SAME", kernel_init=init, dtype=dtype, name=name)


def group_norm(channels: int, *, name: str) -> nn.GroupNorm:
    """GroupNorm in float32 with 32 groups, or the most that divide the channels and leave 4 of them to a group.

    With one channel a group, the norm would take away what `h + time` adds to each channel.
    The variance is taken in two passes: E[x^2] - E[x]^2 loses 3 digits on features with a large mean.
    """
    groups = max(g for g in range(1, 33) if channels % g == 0 and (channels >= 4 * g or g == 1))
    return nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False, dtype=jnp.float32, name=name)


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv twice, told the time in between, beside a skip connection.

    `scale_shift` False: h + time (DDPM). True: GroupNorm(h) (1 + scale) + shift (adaptive group norm, improved DDPM).

    Ho et al. 2020, appendix B; Nichol and Dhariwal 2021, section 3.
    """

    features: int
    dropout: float
    scale_shift: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Images, time: Float[Array, "batch embedding"], train: bool) -> Features:
        channels = x.shape[-1]
        h = nn.silu(group_norm(channels, name="norm_1")(x))
        h = conv(self.features, dtype=self.dtype, name="conv_1")(h)
        width = 2 * self.features if self.scale_shift else self.features
        time = nn.Dense(width, kernel_init=DEFAULT_INIT, dtype=self.dtype, name="time")(nn.silu(time))[:, None, None, :]
        norm_2 = group_norm(self.features, name="norm_2")
        if self.scale_shift:
            scale, shift = jnp.split(time, 2, axis=-1)
            h = norm_2(h) * (1 + scale) + shift
        else:
            h = norm_2(h + time)
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = conv(self.features, init=ZERO_INIT, dtype=self.dtype, name="conv_2")(h)
        if channels != self.features:
            x = conv(self.features, 1, dtype=self.dtype, name="skip")(x)
        return x + h


class SelfAttention(nn.Module):
    """Attention of each pixel to all others, beside a skip connection.

    Ho et al. 2020, appendix B; softmax(q k^T / sqrt(d)) v of Vaswani et al. 2017, Eq. 1.
    """

    num_heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Images) -> Images:
        batch, height, width, channels = x.shape

        def dense(name, init=DEFAULT_INIT):
            return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name=name)

        h = group_norm(channels, name="norm")(x).reshape(batch, height * width, channels)
        heads = (batch, height * width, self.num_heads, channels // self.num_heads)
        q, k, v = (dense(name)(h).reshape(heads) for name in ("query", "key", "value"))
        h = jax.nn.dot_product_attention(q, k, v).reshape(batch, height, width, channels)
        return x + dense("out", ZERO_INIT)(h)


class Downsample(nn.Module):
    """A convolution of stride 2."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch half_height half_width channels"]:
        return conv(x.shape[-1], stride=2, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Each pixel repeated 2 x 2, then a convolution."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch double_height double_width channels"]:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return conv(x.shape[-1], dtype=self.dtype, name="conv")(x)
