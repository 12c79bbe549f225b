"""The attention of latent diffusion: a transformer block between two projections."""

import flax.linen as nn
import jax.numpy as jnp

from ddpm.models.dot_product import attend
from ddpm.models.layers import DEFAULT_INIT, ZERO_INIT, TokenMask, Tokens, conv, group_norm, layer_norm
from ddpm.shapes import Images


class SpatialTransformer(nn.Module):
    """Pixels as tokens: attention to each other, to the tokens they are told, and a feed-forward network of each.

    h = proj_in(GroupNorm(x));  h += attention(LayerNorm(h));  h += attention(LayerNorm(h), tokens);
    h += W (a gelu(b)) with (a, b) = V LayerNorm(h);  x + proj_out(h). Without tokens the second attention is left out.
    `groups`: of the group norm, as for `group_norm`.

    Rombach et al. 2022 (latent diffusion), section 3.3 and appendix E.2.1; Shazeer 2020 (GEGLU), Eq. 6.
    """

    num_heads: int
    dtype: jnp.dtype
    groups: int = 0

    @nn.compact
    def __call__(self, x: Images, tokens: Tokens | None = None, mask: TokenMask | None = None) -> Images:
        batch, height, width, channels = x.shape

        def dense(features, name, use_bias=True):
            return nn.Dense(features, use_bias, kernel_init=DEFAULT_INIT, dtype=self.dtype, name=name)

        def attention(queries, keys, mask, name):
            def heads(kind, h):
                h = dense(channels, f"{name}_{kind}", use_bias=False)(h)
                return h.reshape(batch, -1, self.num_heads, channels // self.num_heads)

            h = attend(heads("query", queries), heads("key", keys), heads("value", keys), mask)
            return dense(channels, f"{name}_out")(h)

        h = conv(channels, 1, dtype=self.dtype, name="proj_in")(group_norm(channels, self.groups, name="norm")(x))
        h = h.reshape(batch, height * width, channels)
        normed = layer_norm(name="norm_1")(h)
        h = h + attention(normed, normed, None, "self")
        if tokens is not None:
            h = h + attention(layer_norm(name="norm_2")(h), tokens, mask, "cross")
        values, gates = jnp.split(dense(8 * channels, "mlp_1")(layer_norm(name="norm_3")(h)), 2, axis=-1)
        h = h + dense(channels, "mlp_2")(values * nn.gelu(gates, approximate=False))
        return x + conv(channels, 1, init=ZERO_INIT, dtype=self.dtype, name="proj_out")(h.reshape(x.shape))
