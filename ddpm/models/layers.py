"""Layers the backbones are made of. Parameters, norms and softmax are float32; `dtype` is that of the rest."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ddpm.errors import InputError, unknown_name
from ddpm.models.dot_product import attend
from ddpm.models.winograd import convolve
from ddpm.shapes import Images

Features = Float[Array, "batch height width features"]
Patches = Float[Array, "batch rows columns features"]
Tokens = Float[Array, "batch tokens features"]
TokenMask = Bool[Array, "batch tokens"]

# DDPM's initialisers: uniform of variance 1 / fan_avg; zero where a branch is to start as nothing.
DEFAULT_INIT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
ZERO_INIT = nn.initializers.zeros_init()


def check_dtype(**names: str) -> None:
    """Raises InputError for what is no name of a type of activations, by its option."""
    known = ("float32", "bfloat16") + ("float64",) * jax.config.jax_enable_x64  # which flax makes float32 without x64
    for option, name in names.items():
        if name not in known:
            raise unknown_name(option, name, known)


def conv(
    features: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: str | int = "SAME",
    init=DEFAULT_INIT,
    dtype=jnp.float32,
    name: str,
) -> nn.Conv:
    """A convolution with DDPM's initialiser; `stride` 2 pads below and to the right, as TensorFlow's SAME."""
    options = dict(kernel_init=init, dtype=dtype, conv_general_dilated=convolve)
    return nn.Conv(features, (kernel, kernel), stride, padding, **options, name=name)


class GroupNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) scale + bias, over the pixels and the channels of each group, in float32.

    Sums over pixels come first, of each channel by itself: on CPU a seventh faster than Flax's over groups at once.
    The variance is taken in two passes: E[x^2] - E[x]^2 loses 3 digits on features with a large mean.

    Wu and He 2018, Eq. 1 to 6.
    """

    num_groups: int
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Images) -> Images:
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
        x = x.astype(jnp.float32)
        x = x - _mean(x, self.num_groups)
        variance = _mean(x**2, self.num_groups)
        return x * (jax.lax.rsqrt(variance + self.epsilon) * scale[None, None, None]) + bias[None, None, None]


def _mean(x, groups):
    batch, _, _, channels = x.shape
    of_groups = x.mean(axis=(1, 2)).reshape(batch, groups, -1).mean(axis=-1)
    return of_groups.repeat(channels // groups, axis=1)[:, None, None, :]


def group_norm(channels: int, groups: int = 0, epsilon: float = 1e-6, *, name: str) -> nn.Module:
    """GroupNorm; `groups` 0: with 32, or the most that divide the channels and leave 4 of them to a group.

    With one channel a group, the norm would take away what `h + time` adds to each channel.

    Raises:
      InputError: the groups do not divide the channels.
    """
    if groups and channels % groups:
        raise InputError(f"norm_groups = {groups} does not divide {channels} channels: use 0, or a number that does.")
    groups = groups or max(g for g in range(1, 33) if channels % g == 0 and (channels >= 4 * g or g == 1))
    return GroupNorm(groups, epsilon, name=name)


def layer_norm(*, name: str) -> nn.LayerNorm:
    """LayerNorm over the features of a token, in float32, with the epsilon of latent diffusion."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=jnp.float32, name=name)


def heads_of(channels: int, num_heads: int, head_channels: int) -> int:
    """So many heads, or as many as have `head_channels` features each where that is not 0.

    Raises:
      InputError: they do not divide the channels.
    """
    if channels % (head_channels or num_heads):
        given = f"head_channels = {head_channels}" if head_channels else f"num_heads = {num_heads}"
        raise InputError(f"{given} does not divide the {channels} channels that attention sees: use one that does.")
    return channels // head_channels if head_channels else num_heads


class Dropout(nn.Module):
    """x / (1 - rate) with chance 1 - rate, else 0, when training.

    The rate is rounded to a multiple of 2^-16: a draw of 64 bits serves four features, where Flax's serves one.

    Srivastava et al. 2014, section 4.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *places features"], train: bool
    ) -> Float[Array, "batch *places features"]:
        threshold = min(round(self.rate * 2**16), 2**16 - 1)
        if not train or not threshold:
            return x
        keys = jax.random.split(self.make_rng("dropout"), (*x.shape[:-1], -(-x.shape[-1] // 4)))
        bits = jax.lax.bitcast_convert_type(jax.random.key_data(keys), jnp.uint16)
        kept = bits.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]] >= threshold
        return jnp.where(kept, x / (1 - threshold / 2**16), 0)


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv twice, told the time in between, beside a skip connection.

    `scale_shift` False: h + time (DDPM). True: GroupNorm(h) (1 + scale) + shift (adaptive group norm, improved DDPM).
    A block that is given no time is told none. `groups`, `epsilon`: of its norms. `resample` 'down' halves the image by the
    mean of 2 x 2 pixels, 'up' doubles it by repeating them, before the first convolution and in the skip connection.

    Ho et al. 2020, appendix B; Nichol and Dhariwal 2021, section 3; Dhariwal and Nichol 2021, section 3 (resample).
    """

    features: int
    dropout: float
    scale_shift: bool
    dtype: jnp.dtype
    groups: int = 0
    epsilon: float = 1e-6
    resample: str = ""

    @nn.compact
    def __call__(
        self, x: Images, time: Float[Array, "batch embedding"] | None, train: bool
    ) -> Float[Array, "batch new_height new_width features"]:
        channels = x.shape[-1]
        resampled = {"": lambda x: x, "down": halved, "up": doubled}[self.resample]
        h = nn.silu(group_norm(channels, self.groups, self.epsilon, name="norm_1")(x))
        h = conv(self.features, dtype=self.dtype, name="conv_1")(resampled(h))
        x = resampled(x)
        norm_2 = group_norm(self.features, self.groups, self.epsilon, name="norm_2")
        if time is None:
            h = norm_2(h)
        else:
            width = 2 * self.features if self.scale_shift else self.features
            time = nn.Dense(width, kernel_init=DEFAULT_INIT, dtype=self.dtype, name="time")(nn.silu(time))
            time = time[:, None, None, :]
            if self.scale_shift:
                scale, shift = jnp.split(time, 2, axis=-1)
                h = norm_2(h) * (1 + scale) + shift
            else:
                h = norm_2(h + time)
        h = Dropout(self.dropout, name="dropout")(nn.silu(h), train)
        h = conv(self.features, init=ZERO_INIT, dtype=self.dtype, name="conv_2")(h)
        if channels != self.features:
            x = conv(self.features, 1, dtype=self.dtype, name="skip")(x)
        return x + h


class SelfAttention(nn.Module):
    """Attention of each pixel to all others, beside a skip connection; `groups`, `epsilon` of its norm.

    Ho et al. 2020, appendix B; softmax(q k^T / sqrt(d)) v of Vaswani et al. 2017, Eq. 1.
    """

    num_heads: int
    dtype: jnp.dtype
    groups: int = 0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Images) -> Images:
        batch, height, width, channels = x.shape

        def dense(name, init=DEFAULT_INIT):
            return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name=name)

        h = group_norm(channels, self.groups, self.epsilon, name="norm")(x).reshape(batch, height * width, channels)
        heads = (batch, height * width, self.num_heads, channels // self.num_heads)
        q, k, v = (dense(name)(h).reshape(heads) for name in ("query", "key", "value"))
        return x + dense("out", ZERO_INIT)(attend(q, k, v).reshape(x.shape))


class CrossAttention(nn.Module):
    """Attention of each pixel to tokens, such as those of a text, beside a skip connection.

    q of GroupNorm(x); k, v of LayerNorm(tokens): Imagen found that norm to help considerably, latent diffusion has none.

    Vaswani et al. 2017, section 3.2.3; Saharia et al. 2022 (Imagen), section 2.5.
    """

    num_heads: int
    dtype: jnp.dtype
    groups: int = 0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Images, tokens: Tokens, mask: TokenMask | None = None) -> Images:
        channels = x.shape[-1]

        def dense(name, init=DEFAULT_INIT):
            return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name=name)

        def heads(name, h):
            return dense(name)(h).reshape(h.shape[0], -1, self.num_heads, channels // self.num_heads)

        h, tokens = (
            group_norm(channels, self.groups, self.epsilon, name="norm")(x),
            layer_norm(name="norm_tokens")(tokens),
        )
        h = attend(heads("query", h), heads("key", tokens), heads("value", tokens), mask)
        return x + dense("out", ZERO_INIT)(h.reshape(x.shape))


class Downsample(nn.Module):
    """A convolution of stride 2; `padding` 1 is on all sides, 0 below and to the right."""

    dtype: jnp.dtype
    padding: int = 0

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch half_height half_width channels"]:
        return conv(x.shape[-1], stride=2, padding=self.padding or "SAME", dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Each pixel repeated 2 x 2, then a convolution."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch double_height double_width channels"]:
        return conv(x.shape[-1], dtype=self.dtype, name="conv")(doubled(x))


def halved(x: Images) -> Float[Array, "batch half_height half_width channels"]:
    """The mean of each 2 x 2 pixels."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


def doubled(x: Images) -> Float[Array, "batch double_height double_width channels"]:
    """Each pixel 2 x 2 times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def to_patches(x: Images, patch: int) -> Patches:
    """patch x patch pixels as the features of one."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // patch, width // patch, patch * patch * channels)


def to_pixels(h: Patches, patch: int) -> Images:
    """What `to_patches` has made patches of."""
    batch, height, width, channels = h.shape
    h = h.reshape(batch, height, width, patch, patch, channels // patch**2).transpose(0, 1, 3, 2, 4, 5)
    return h.reshape(batch, height * patch, width * patch, channels // patch**2)
