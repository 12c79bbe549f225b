"""BERT, a transformer that reads a text both ways; for inference alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

EXACT = jax.lax.Precision.HIGHEST


class BertEncoder(nn.Module):
    """Tokens to the features of each: h = LN(h + attention(h)); h = LN(h + W_2 gelu(W_1 h)), the norm after the sum.

    A token is attended to where `mask` says that there is one. Positions count from 0; all tokens are of the first of
    the two sentences that BERT may be given.

    Args:
      tokens: how many there are to know; `positions` how many of them a text may have.
      width: of the features; `inner` that between W_1 and W_2.
      epsilon: added to the variance in norms.

    Devlin et al. 2019; Vaswani et al. 2017.
    """

    tokens: int
    positions: int
    width: int
    inner: int
    layers: int
    heads: int
    epsilon: float

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch length"], mask: Bool[Array, "batch length"]
    ) -> Float[Array, "batch length width"]:
        def norm(h, name):
            return nn.LayerNorm(self.epsilon, use_fast_variance=False, name=name)(h)

        def dense(h, features, name):
            return nn.Dense(features, precision=EXACT, name=name)(h)

        positions = jnp.arange(tokens.shape[1])[None]
        h = nn.Embed(self.tokens, self.width, name="tokens_embedded")(tokens)
        h = h + nn.Embed(self.positions, self.width, name="positions_embedded")(positions)
        h = norm(h + nn.Embed(2, self.width, name="sentences_embedded")(jnp.zeros_like(positions)), "norm")
        for i in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(self.heads, precision=EXACT, name=f"layer_{i}.attention")
            h = norm(h + attention(h, mask=mask[:, None, None, :]), f"layer_{i}.attention_norm")
            wide = nn.gelu(dense(h, self.inner, f"layer_{i}.wide"), approximate=False)
            h = norm(h + dense(wide, self.width, f"layer_{i}.narrow"), f"layer_{i}.norm")
        return h
