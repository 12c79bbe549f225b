"""The U-Net of DDPM."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Real

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError, check_at_least, unknown_name
from ddpm.models.attention import SpatialTransformer
from ddpm.models.layers import (
    DEFAULT_INIT,
    ZERO_INIT,
    CrossAttention,
    Downsample,
    Features,
    ResidualBlock,
    SelfAttention,
    TokenMask,
    Tokens,
    Upsample,
    check_dtype,
    conv,
    group_norm,
    heads_of,
    to_patches,
    to_pixels,
)
from ddpm.models.told import embedding, joined
from ddpm.shapes import Images

TIMES = ("norm", "token")
ATTENTIONS = ("simple", "transformer")


class UNet(nn.Module):
    """The DDPM U-Net: noised image and time to an image of `out_channels` channels.

    Of a condition it is told: labels and noise, embedded and added to the embedding of the time; an image, whose channels
    join those of x; a text, by cross-attention wherever there is attention.

    Args:
      out_channels: channels of the output.
      patch: pixels of a side that become the features of one; all levels are smaller by that, and faster by its square.
      channels: features at full resolution, a multiple of 4.
      channel_mult: features of each level as a multiple of `channels`; each level halves the resolution.
      num_res_blocks: residual blocks a level on the way down; one more on the way up.
      attention_resolutions: heights of feature maps that get attention after each residual block; the smallest always has it.
      attention: 'simple', DDPM's self-attention and then cross-attention, or 'transformer', the block of latent diffusion.
      time: how the network is told it (with labels and noise): 'norm', in each residual block, before or by its second norm,
        or 'token', by cross-attention to one more token of the text, or to it alone.
      num_heads: attention heads.
      head_channels: features of a head, which make their number where it is not 0.
      dropout: rate inside the residual blocks, in [0, 1).
      scale_shift: adaptive group norm instead of adding the time embedding.
      num_labels: rows of the embedding of class labels, which is added to that of the time; 0 for a model without classes.
      norm_groups: of the group norms; 0 for 32, or the most that divide the channels and leave 4 of them to a group.
      norm_eps: added to the variance in group norms, but in those of attention 'transformer', which is 1e-6.
      downsample_padding: 0 pads below and to the right as TensorFlow, 1 on all sides as PyTorch, before the image is halved.
      resblock_updown: a residual block halves or doubles the image, no convolution.
      freq_shift: 1 spaces the frequencies of times as DDPM's code, 0 as improved DDPM's.
      time_channels: features of a time's sines and cosines; 0 for as many as `channels`.
      fourier: exponents n of features sin(2 pi 2^n x), cos(2 pi 2^n x) that x is joined by, for a likelihood that sees
        the last bits of the data; VDM uses (6, 7).
      dtype: of activations, 'float32' or 'bfloat16'; parameters, norms and softmax stay float32.
      remat: recompute the blocks in the backward pass: less memory, about a third more time.
    Raises:
      InputError: an argument out of its range, an image whose size the levels do not divide, or an attention
        resolution that no level has.

    Ho et al. 2020, appendix B; Kingma et al. 2021 (VDM), appendix C (fourier); Nichol and Dhariwal 2021 (labels);
    Dhariwal and Nichol 2021, section 3 (head_channels, resblock_updown); Rombach et al. 2022, section 3.3 (text); Hoogeboom et al. 2023 (simple diffusion), section 3.3 (patch); Ho et al. 2021 (cascaded diffusion), section 4 (image and its noise).
    """

    out_channels: int
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = (16,)
    attention: str = "simple"
    time: str = "norm"
    num_heads: int = 1
    dropout: float = 0.1
    scale_shift: bool = False
    num_labels: int = 0
    fourier: Sequence[int] = ()
    patch: int = 1
    dtype: str = "float32"
    remat: bool = False
    head_channels: int = 0
    norm_groups: int = 0
    norm_eps: float = 1e-6
    downsample_padding: int = 0
    resblock_updown: bool = False
    freq_shift: int = 1
    time_channels: int = 0

    @nn.compact
    def __call__(
        self, x: Images, t: Real[Array, "batch"], condition: Condition = NOTHING, *, train: bool = False
    ) -> Features:
        self._check(x.shape[1], x.shape[2])
        dtype, norm = jnp.dtype(self.dtype), (self.norm_groups, self.norm_eps)
        residual, to_self, to_tokens, transformer = ResidualBlock, SelfAttention, CrossAttention, SpatialTransformer
        if self.remat:
            residual = nn.remat(ResidualBlock, static_argnums=(3,))  # counting self: train
            to_self, to_tokens, transformer = map(nn.remat, (to_self, to_tokens, transformer))

        def block(h, features, name, resample=""):
            told = None if self.time == "token" else time
            return residual(features, self.dropout, self.scale_shift, dtype, *norm, resample, name=name)(h, told, train)

        def resampled(h, name, way):
            if self.resblock_updown:
                return block(h, h.shape[-1], name, way)
            return (
                Upsample(dtype, name=name) if way == "up" else Downsample(dtype, self.downsample_padding, name=name)
            )(h)

        def attend(h, name):
            heads = heads_of(h.shape[-1], self.num_heads, self.head_channels)
            if self.attention == "transformer":
                return transformer(heads, dtype, self.norm_groups, name=f"{name}_attention")(h, tokens, mask)
            h = to_self(heads, dtype, *norm, name=f"{name}_attention")(h)
            return h if tokens is None else to_tokens(heads, dtype, *norm, name=f"{name}_cross")(h, tokens, mask)

        def blocks(h, features, name):
            h = block(h, features, name)
            return attend(h, name) if h.shape[1] in self.attention_resolutions else h

        width = self.time_channels or self.channels
        time = embedding(
            t, condition, width, 4 * width, num_labels=self.num_labels, freq_shift=self.freq_shift, dtype=dtype
        )
        tokens, mask = self._tokens(time, condition, dtype)
        waves = [wave(2 * jnp.pi * 2.0**n * x) for n in self.fourier for wave in (jnp.sin, jnp.cos)]
        h = joined(jnp.concatenate([x, *waves], axis=-1), condition)
        h = conv(self.channels, dtype=dtype, name="conv_in")(to_patches(h, self.patch))
        skips = [h]
        for level, mult in enumerate(self.channel_mult):
            if level > 0:
                h = resampled(h, f"down_{level}_downsample", "down")
                skips.append(h)
            for i in range(self.num_res_blocks):
                h = blocks(h, self.channels * mult, f"down_{level}_{i}")
                skips.append(h)

        h = attend(block(h, h.shape[-1], "mid_0"), "mid")
        h = block(h, h.shape[-1], "mid_1")

        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = blocks(h, self.channels * mult, f"up_{level}_{i}")
            if level > 0:
                h = resampled(h, f"up_{level}_upsample", "up")

        h = nn.silu(group_norm(h.shape[-1], *norm, name="norm_out")(h))
        h = conv(self.out_channels * self.patch**2, init=ZERO_INIT, name="conv_out")(h)
        return to_pixels(h, self.patch)

    def _tokens(self, time: Array, condition: Condition, dtype: jnp.dtype) -> tuple[Tokens | None, TokenMask | None]:
        """What there is to attend to beside the image, and which of it there is."""
        tokens, mask = (None, None) if condition.text is None else (condition.text, condition.mask)
        if self.time == "token":
            width = time.shape[-1] if tokens is None else tokens.shape[-1]
            token = nn.Dense(width, kernel_init=DEFAULT_INIT, dtype=dtype, name="time_token")(nn.silu(time))[:, None, :]
            tokens = token if tokens is None else jnp.concatenate([tokens, token], axis=1)
            mask = mask if mask is None else jnp.pad(mask, ((0, 0), (0, 1)), constant_values=True)
        return tokens, mask

    def _check(self, height: int, width: int) -> None:
        check_at_least(1, **{"model.unet.num_res_blocks": self.num_res_blocks, "model.unet.num_heads": self.num_heads})
        if self.channels < 4 or self.channels % 4:
            raise InputError(f"model.unet.channels = {self.channels} must be a multiple of 4; DDPM uses 128.")
        mults = tuple(self.channel_mult)
        if not mults or not all(isinstance(mult, int) and mult > 0 for mult in mults):
            raise InputError(
                f"model.unet.channel_mult = {mults} must be positive integers, one a level, as (1, 2, 2, 2)."
            )
        if not self.head_channels and any(self.channels * mult % self.num_heads for mult in mults):
            raise InputError(
                f"model.unet.num_heads = {self.num_heads} does not divide {self.channels} times {mults} channels."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.unet.dropout = {self.dropout} is not in [0, 1); DDPM uses 0.1.")
        check_dtype(**{"model.unet.dtype": self.dtype})
        check_at_least(0, **{f"model.unet.{name}": getattr(self, name) for name in ("head_channels", "norm_groups")})
        for name in ("downsample_padding", "freq_shift"):
            if getattr(self, name) not in (0, 1):
                raise InputError(f"model.unet.{name} = {getattr(self, name)} must be 0 or 1.")
        for option, name, known in (("time", self.time, TIMES), ("attention", self.attention, ATTENTIONS)):
            if name not in known:
                raise unknown_name(f"model.unet.{option}", name, known)
        if self.time == "token" and self.scale_shift:
            raise InputError(
                "model.unet.scale_shift = True tells the time to the residual blocks, and with time = 'token' they are told "
                "none: set scale_shift = False, or time = 'norm'."
            )
        check_at_least(1, **{"model.unet.patch": self.patch})
        if height % self.patch or width % self.patch:
            raise InputError(
                f"model.unet.patch = {self.patch} does not divide an image of {height} x {width}: use 1, 2 or 4."
            )
        height, width = height // self.patch, width // self.patch
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
