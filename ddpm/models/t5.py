"""T5's encoder, a transformer that reads a text both ways and knows places by their distance; for inference alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

EXACT = jax.lax.Precision.HIGHEST


def distance_buckets(length: int, buckets: int, furthest: int) -> Int[np.ndarray, "length length"]:
    """Which of the learned distances token j is from token i, [i, j].

    Half of them are for j <= i, half for j > i. Of each half, n in number, the first n / 2 are distances d of that many
    tokens, and the others grow with log d: n/2 + floor(n/2 log(2 d / n) / log(2 furthest / n)), up to `furthest`.

    Raffel et al. 2020, section 2.1, in the numbers of its code.
    """
    half = buckets // 2
    near = half // 2
    far = np.arange(length) - np.arange(length)[:, None]
    d = np.abs(far)
    grown = np.log(np.maximum(d, near) / near) / np.log(furthest / near) * (half - near)
    grown = np.minimum(near + np.floor(grown).astype(int), half - 1)
    return np.where(d < near, d, grown) + half * (far > 0)


class T5Encoder(nn.Module):
    """Tokens to the features of each: h = h + attention(RMS(h)); h = h + W_2 act(W_1 RMS(h)); at the end RMS(h).

    The attention is softmax(q k + b), unscaled, with b of the bucket of their distance, the same in all layers. A token
    is attended to where `mask` says that there is one.

    Args:
      tokens: how many there are to know.
      width: of the features; `inner` that between W_1 and W_2, `head` that of a head.
      buckets: learned distances, up to that of `furthest` tokens.
      gated: gelu(W_1 x) W_3 x, as T5 1.1 has it, in place of relu(W_1 x).
      epsilon: added to the mean square in norms.

    Raffel et al. 2020; Shazeer 2020.
    """

    tokens: int
    width: int
    inner: int
    layers: int
    heads: int
    head: int
    buckets: int
    furthest: int
    gated: bool
    epsilon: float

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch length"], mask: Bool[Array, "batch length"]
    ) -> Float[Array, "batch length width"]:
        def norm(h, name):
            return nn.RMSNorm(self.epsilon, name=name)(h)

        def dense(h, features, name):
            return nn.Dense(features, use_bias=False, precision=EXACT, name=name)(h)

        def by_head(h, name):
            return dense(h, self.heads * self.head, name).reshape(*h.shape[:2], self.heads, self.head)

        places = distance_buckets(tokens.shape[1], self.buckets, self.furthest)
        bias = nn.Embed(self.buckets, self.heads, name="distances_embedded")(jnp.asarray(places))
        bias = jnp.where(mask[:, None, None, :], bias.transpose(2, 0, 1)[None], jnp.finfo(jnp.float32).min)
        h = nn.Embed(self.tokens, self.width, name="tokens_embedded")(tokens)
        for i in range(self.layers):
            x = norm(h, f"layer_{i}.attention_norm")
            query, key, value = (by_head(x, f"layer_{i}.{part}") for part in ("query", "key", "value"))
            scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=EXACT) + bias
            seen = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value, precision=EXACT)
            h = h + dense(seen.reshape(*h.shape[:2], -1), self.width, f"layer_{i}.out")
            x = norm(h, f"layer_{i}.norm")
            wide = dense(x, self.inner, f"layer_{i}.wide")
            wide = nn.gelu(wide) * dense(x, self.inner, f"layer_{i}.gate") if self.gated else nn.relu(wide)
            h = h + dense(wide, self.width, f"layer_{i}.narrow")
        return norm(h, "norm")
