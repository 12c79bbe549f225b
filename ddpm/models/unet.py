"""The U-Net of DDPM."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Real

from ddpm.errors import InputError, check_at_least, unknown_name
from ddpm.models.layers import (
    DEFAULT_INIT,
    ZERO_INIT,
    Downsample,
    Features,
    ResidualBlock,
    SelfAttention,
    Upsample,
    conv,
    group_norm,
    sinusoidal,
)
from ddpm.shapes import Images

LABEL_INIT = nn.initializers.normal(1.0)  # PyTorch's, as in the code of improved DDPM
DTYPES = ("float32", "bfloat16")


class UNet(nn.Module):
    """The DDPM U-Net: noised image and time to an image of `out_channels` channels.

    Args:
      out_channels: channels of the output.
      channels: features at full resolution, a multiple of 4.
      channel_mult: features of each level as a multiple of `channels`; each level halves the resolution.
      num_res_blocks: residual blocks a level on the way down; one more on the way up.
      attention_resolutions: heights of feature maps that get attention after each residual block.
      num_heads: attention heads.
      dropout: rate inside the residual blocks, in [0, 1).
      scale_shift: adaptive group norm instead of adding the time embedding.
      num_labels: rows of the embedding of class labels, which is added to that of the time; 0 for a model without classes.
      fourier: exponents n of features sin(2 pi 2^n x), cos(2 pi 2^n x) that x is joined by, for a likelihood that sees
        the last bits of the data; VDM uses (6, 7).
      dtype: of activations, 'float32' or 'bfloat16'; parameters, norms and softmax stay float32.
      remat: recompute the blocks in the backward pass: less memory, about a third more time.
    Raises:
      InputError: an argument out of its range, an image whose size the levels do not divide, or an attention
        resolution that no level has.

    Ho et al. 2020, appendix B; Kingma et al. 2021 (VDM), appendix C (fourier); Nichol and Dhariwal 2021 (labels).
    """

    out_channels: int
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = (16,)
    num_heads: int = 1
    dropout: float = 0.1
    scale_shift: bool = False
    num_labels: int = 0
    fourier: Sequence[int] = ()
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Images, t: Real[Array, "batch"], labels: Int[Array, "batch"] | None = None, *, train: bool = False
    ) -> Features:
        self._check(x.shape[1], x.shape[2])
        dtype = jnp.dtype(self.dtype)
        residual, attention = ResidualBlock, SelfAttention
        if self.remat:
            residual = nn.remat(ResidualBlock, static_argnums=(3,))  # counting self: train
            attention = nn.remat(SelfAttention)

        def block(h, features, name):
            h = residual(features, self.dropout, self.scale_shift, dtype, name=name)(h, time, train)
            if h.shape[1] in self.attention_resolutions:
                h = attention(self.num_heads, dtype, name=f"{name}_attention")(h)
            return h

        def dense(name):
            return nn.Dense(4 * self.channels, kernel_init=DEFAULT_INIT, dtype=dtype, name=name)

        time = dense("time_2")(nn.silu(dense("time_1")(sinusoidal(t, self.channels))))
        if self.num_labels:
            embed = nn.Embed(self.num_labels, 4 * self.channels, embedding_init=LABEL_INIT, dtype=dtype, name="label")
            time += embed(labels)

        waves = [wave(2 * jnp.pi * 2.0**n * x) for n in self.fourier for wave in (jnp.sin, jnp.cos)]
        h = conv(self.channels, dtype=dtype, name="conv_in")(jnp.concatenate([x, *waves], axis=-1))
        skips = [h]
        for level, mult in enumerate(self.channel_mult):
            if level > 0:
                h = Downsample(dtype, name=f"down_{level}_downsample")(h)
                skips.append(h)
            for i in range(self.num_res_blocks):
                h = block(h, self.channels * mult, f"down_{level}_{i}")
                skips.append(h)

        h = residual(h.shape[-1], self.dropout, self.scale_shift, dtype, name="mid_0")(h, time, train)
        h = attention(self.num_heads, dtype, name="mid_attention")(h)
        h = residual(h.shape[-1], self.dropout, self.scale_shift, dtype, name="mid_1")(h, time, train)

        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(h, self.channels * mult, f"up_{level}_{i}")
            if level > 0:
                h = Upsample(dtype, name=f"up_{level}_upsample")(h)

        h = nn.silu(group_norm(h.shape[-1], name="norm_out")(h))
        return conv(self.out_channels, init=ZERO_INIT, name="conv_out")(h)

    def _check(self, height: int, width: int) -> None:
        check_at_least(1, **{"model.unet.num_res_blocks": self.num_res_blocks, "model.unet.num_heads": self.num_heads})
        if self.channels < 4 or self.channels % 4:
            raise InputError(f"model.unet.channels = {self.channels} must be a multiple of 4; DDPM uses 128.")
        mults = tuple(self.channel_mult)
        if not mults or not all(isinstance(mult, int) and mult > 0 for mult in mults):
            raise InputError(
                f"model.unet.channel_mult = {mults} must be positive integers, one a level, as (1, 2, 2, 2)."
            )
        if any(self.channels * mult % self.num_heads for mult in mults):
            raise InputError(
                f"model.unet.num_heads = {self.num_heads} does not divide {self.channels} times {mults} channels."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.unet.dropout = {self.dropout} is not in [0, 1); DDPM uses 0.1.")
        known = DTYPES + ("float64",) * jax.config.jax_enable_x64  # which flax makes float32 without x64
        if self.dtype not in known:
            raise unknown_name("model.unet.dtype", self.dtype, known)
        halvings = len(self.channel_mult) - 1
        for side, size in (("height", height), ("width", width)):
            if size % 2**halvings:
                raise InputError(
                    f"image {side} {size} is not divisible by {2**halvings} = 2^{halvings}, as the {halvings + 1} levels "
                    f"of channel_mult = {tuple(self.channel_mult)} need. Resize the images or use fewer levels."
                )
        heights = [height // 2**level for level in range(halvings + 1)]
        missing = sorted(set(self.attention_resolutions) - set(heights))
        if missing:
            raise InputError(
                f"attention_resolutions = {tuple(self.attention_resolutions)}: no level has height {missing[0]}. "
                f"The levels of a {height} x {width} image have heights {', '.join(map(str, heights))}."
            )
