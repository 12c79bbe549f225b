"""The diffusion transformer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError, check_at_least, unknown_name
from ddpm.models.dot_product import attend
from ddpm.models.layers import (
    DEFAULT_INIT,
    ZERO_INIT,
    Dropout,
    Features,
    Tokens,
    check_dtype,
    to_patches,
    to_pixels,
)
from ddpm.models.told import embedding, joined
from ddpm.shapes import Images

EMBEDDING_INIT = nn.initializers.normal(0.02)  # of the times and labels, as in the paper's code
POSITIONS = ("sincos", "rotary")


class DiT(nn.Module):
    """Noised image and time to an image of `out_channels` channels, by a transformer over patches of the image.

    Of a condition it is told: labels and noise, embedded and added to the embedding of the time; an image, whose channels
    join those of x; no text.

    Args:
      out_channels: channels of the output.
      patch_size: pixels of the side of a patch, which divides those of the image.
      width: features of a token, a multiple of 4 and of `num_heads`; for rotary positions of 4 times that.
      depth: blocks.
      num_heads: attention heads.
      mlp_ratio: features inside the feed-forward network as a multiple of `width`.
      dropout: rate after attention and inside the feed-forward network, in [0, 1); the paper has none.
      positions: 'sincos', added to the patches once, or 'rotary', by which attention turns queries and keys.
      num_labels: rows of the embedding of class labels; 0 for a model without classes.
      freq_shift: 1 spaces the frequencies of times as DDPM's code, 0 as the paper's.
      dtype: of activations, 'float32' or 'bfloat16'; parameters, norms and softmax stay float32.
      remat: recompute the blocks in the backward pass: less memory, about a third more time.
    Raises:
      InputError: an argument out of its range, an image whose size is no multiple of the patch's, or a text.

    Peebles and Xie 2023, section 3 (adaLN-Zero); sizes S, B, L, XL are (width, depth, heads) = (384, 12, 6), (768, 12, 12),
    (1024, 24, 16), (1152, 28, 16).
    """

    out_channels: int
    patch_size: int = 2
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float | int = 4.0
    dropout: float | int = 0.0
    positions: str = "sincos"
    num_labels: int = 0
    dtype: str = "float32"
    remat: bool = False
    freq_shift: int = 1

    @nn.compact
    def __call__(
        self, x: Images, t: Real[Array, "batch"], condition: Condition = NOTHING, *, train: bool = False
    ) -> Features:
        self._check(x.shape[1], x.shape[2], condition)
        dtype, p = jnp.dtype(self.dtype), self.patch_size
        batch, rows, columns = x.shape[0], x.shape[1] // p, x.shape[2] // p
        told = embedding(
            t,
            condition,
            256,
            self.width,
            num_labels=self.num_labels,
            freq_shift=self.freq_shift,
            init=EMBEDDING_INIT,
            label_init=EMBEDDING_INIT,
            dtype=dtype,
        )

        patches = to_patches(joined(x, condition), p).reshape(batch, rows * columns, -1)
        h = nn.Dense(self.width, kernel_init=DEFAULT_INIT, dtype=dtype, name="patch")(patches)
        angles = None
        if self.positions == "rotary":
            angles = jnp.asarray(axial(rows, columns, self.width // self.num_heads // 2, base=100), jnp.float32)
        else:
            of_both = axial(rows, columns, self.width // 2, base=10_000)
            waves = [wave for of_one in np.split(of_both, 2, axis=1) for wave in (np.sin(of_one), np.cos(of_one))]
            h += jnp.asarray(np.concatenate(waves, axis=1), h.dtype)[None]

        block = nn.remat(Block, static_argnums=(4,)) if self.remat else Block  # counting self: train
        for i in range(self.depth):
            h = block(self.num_heads, self.mlp_ratio, self.dropout, dtype, name=f"block_{i}")(h, told, angles, train)

        shift, scale = modulation(told, 2, self.width, dtype)
        h = norm("norm_out")(h) * (1 + scale) + shift
        h = nn.Dense(p * p * self.out_channels, kernel_init=ZERO_INIT, name="out")(h)
        return to_pixels(h.reshape(batch, rows, columns, -1), p)

    def _check(self, height: int, width: int, condition: Condition) -> None:
        at_least_one = {f"model.dit.{name}": getattr(self, name) for name in ("patch_size", "depth", "num_heads")}
        check_at_least(1, **at_least_one)
        if self.width < 4 or self.width % 4:
            raise InputError(f"model.dit.width = {self.width} must be a multiple of 4; DiT-S has 384.")
        if self.width % self.num_heads:
            raise InputError(f"model.dit.num_heads = {self.num_heads} does not divide width = {self.width}.")
        if self.mlp_ratio <= 0:
            raise InputError(f"model.dit.mlp_ratio = {self.mlp_ratio} must be positive; DiT has 4.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dit.dropout = {self.dropout} is not in [0, 1); DiT has 0.")
        if self.freq_shift not in (0, 1):
            raise InputError(f"model.dit.freq_shift = {self.freq_shift} must be 0 or 1.")
        if self.positions not in POSITIONS:
            raise unknown_name("model.dit.positions", self.positions, POSITIONS)
        of_a_head = self.width // self.num_heads
        if self.positions == "rotary" and of_a_head % 4:
            raise InputError(
                f"model.dit.positions = 'rotary' turns pairs of features by the row and pairs by the column, and {of_a_head} "
                f"features a head are no multiple of 4: change width = {self.width} or num_heads = {self.num_heads}."
            )
        check_dtype(**{"model.dit.dtype": self.dtype})
        for side, size in (("height", height), ("width", width)):
            if size % self.patch_size:
                raise InputError(
                    f"image {side} {size} is not divisible by model.dit.patch_size = {self.patch_size}. "
                    "Resize the images or change the patches."
                )
        if condition.text is not None:
            raise InputError("model 'dit' reads no text: use model 'unet', which does by cross-attention.")


class Block(nn.Module):
    """Attention of the tokens to each other and a feed-forward network, each modulated and gated by what is told.

    h += g_1 attention(LayerNorm(h) (1 + c_1) + s_1);  h += g_2 MLP(LayerNorm(h) (1 + c_2) + s_2), and
    (s_1, c_1, g_1, s_2, c_2, g_2) = W silu(told), W zero at first: each block starts as the identity.

    Peebles and Xie 2023, section 3.2 (adaLN-Zero).
    """

    num_heads: int
    mlp_ratio: float | int
    dropout: float | int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, h: Tokens, told: Float[Array, "batch features"], angles: Float[Array, "tokens angles"] | None, train: bool
    ) -> Tokens:
        width = h.shape[-1]

        def dense(features, name):
            return nn.Dense(features, kernel_init=DEFAULT_INIT, dtype=self.dtype, name=name)

        def heads(name, h):
            h = dense(width, name)(h).reshape(*h.shape[:2], self.num_heads, -1)
            return h if angles is None or name == "value" else turned(h, angles)

        def drop(h):
            return Dropout(self.dropout)(h, train)

        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation(told, 6, width, self.dtype)
        n = norm("norm_1")(h) * (1 + scale_1) + shift_1
        n = attend(heads("query", n), heads("key", n), heads("value", n))
        h = h + gate_1 * drop(dense(width, "out")(n))
        n = norm("norm_2")(h) * (1 + scale_2) + shift_2
        n = drop(nn.gelu(dense(int(self.mlp_ratio * width), "mlp_1")(n), approximate=True))
        return h + gate_2 * dense(width, "mlp_2")(n)


def norm(name: str) -> nn.LayerNorm:
    """LayerNorm in float32 without parameters: scale and shift come from what is told."""
    return nn.LayerNorm(
        epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, dtype=jnp.float32, name=name
    )


def modulation(told: Float[Array, "batch features"], parts: int, width: int, dtype: jnp.dtype) -> list[Array]:
    """So many rows of `width` features for all tokens of an example, all zero at first."""
    rows = nn.Dense(parts * width, kernel_init=ZERO_INIT, dtype=dtype, name="modulation")(nn.silu(told))
    return jnp.split(rows[:, None, :], parts, axis=-1)


def axial(rows: int, columns: int, features: int, *, base: float | int) -> np.ndarray:
    """The angles [rows * columns, features] of positions: x base^(-i / half), then y base^(-i / half), half = features / 2.

    Peebles and Xie 2023, section 3.2, with the base 10000 of Vaswani et al. 2017; Heo et al. 2024 (axial rotary), base 100.
    """
    half = features // 2
    frequencies = float(base) ** (-np.arange(half) / half)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1)
    return np.concatenate([x * frequencies, y * frequencies], axis=1)


def turned(
    h: Float[Array, "batch tokens heads dims"], angles: Float[Array, "tokens angles"]
) -> Float[Array, "batch tokens heads dims"]:
    """Pairs (h_i, h_(i + dims / 2)) of features turned by angles [tokens, dims / 2]: products of two depend on differences.

    Su et al. 2021 (RoFormer), section 3.2.2.
    """
    cos, sin = (wave(angles)[None, :, None, :] for wave in (jnp.cos, jnp.sin))
    a, b = jnp.split(h, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(h.dtype)
