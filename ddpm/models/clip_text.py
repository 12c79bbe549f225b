"""CLIP's text model, a transformer that reads a text forwards; for inference alone."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

EXACT = jax.lax.Precision.HIGHEST
ACTIVATIONS = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # OpenAI's weights
    "gelu": functools.partial(nn.gelu, approximate=False),  # OpenCLIP's
}


class ClipTextEncoder(nn.Module):
    """Tokens to the features of each: h = h + attention(LN(h)); h = h + W_2 act(W_1 LN(h)); at the end LN(h).

    A token is attended to by itself and by those after it, so what follows the end of a text changes nothing in it.

    Args:
      tokens: how many there are to know; `positions` how many of them a text may have.
      width: of the features; `inner` that between W_1 and W_2.
      activation: a key of ACTIVATIONS.
      epsilon: added to the variance in norms.

    Radford et al. 2021, section 2.4.
    """

    tokens: int
    positions: int
    width: int
    inner: int
    layers: int
    heads: int
    activation: str
    epsilon: float

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
        def norm(h, name):
            return nn.LayerNorm(self.epsilon, use_fast_variance=False, name=name)(h)

        def dense(h, features, name):
            return nn.Dense(features, precision=EXACT, name=name)(h)

        positions = jnp.arange(tokens.shape[1])
        seen = (positions[:, None] >= positions[None, :])[None, None]
        h = nn.Embed(self.tokens, self.width, name="tokens_embedded")(tokens)
        h = h + nn.Embed(self.positions, self.width, name="positions_embedded")(positions[None])
        for i in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(self.heads, precision=EXACT, name=f"layer_{i}.attention")
            h = h + attention(norm(h, f"layer_{i}.attention_norm"), mask=seen)
            wide = ACTIVATIONS[self.activation](dense(norm(h, f"layer_{i}.norm"), self.inner, f"layer_{i}.wide"))
            h = h + dense(wide, self.width, f"layer_{i}.narrow")
        return norm(h, "norm")
