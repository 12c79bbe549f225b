"""What a network is told of an image, as features of its own: times, labels, another image."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ddpm.condition import Condition
from ddpm.errors import InputError
from ddpm.models.layers import DEFAULT_INIT, Features
from ddpm.shapes import Images

LABEL_INIT = nn.initializers.normal(1.0)  # PyTorch's, as in the code of improved DDPM


def sinusoidal(t: Real[Array, "batch"], channels: int, freq_shift: int = 1) -> Float[Array, "batch channels"]:
    """The sinusoidal embedding of a time: [sin(t w_0), ..., cos(t w_0), ...], w_i = 10000^(-i / (channels / 2 - freq_shift)).

    Args:
      t: times [batch].
      channels: width of the embedding, even and at least 4.
      freq_shift: 1 as in DDPM's code, 0 as in improved DDPM's and DiT's.

    Vaswani et al. 2017, section 3.5, in the order of DDPM's code.
    """
    half = channels // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - freq_shift) * jnp.arange(half, dtype=jnp.float32))
    angles = t.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def embedding(
    t: Real[Array, "batch"],
    condition: Condition,
    channels: int,
    features: int,
    *,
    num_labels: int,
    freq_shift: int = 1,
    init=DEFAULT_INIT,
    label_init=LABEL_INIT,
    dtype: jnp.dtype,
) -> Float[Array, "batch features"]:
    """What is added up of a time, a label and how noisy the image beside x is: W silu(V sinusoidal(t)) + ...

    Args:
      t: times [batch].
      channels, features: of the sinusoidal embedding, and of what is made of it.
      num_labels: rows of the embedding of labels; 0 for a model that is told none.
      freq_shift: of the sinusoidal embedding.

    Ho et al. 2020, appendix B; Nichol and Dhariwal 2021 (labels); Saharia et al. 2022 (Imagen), section 2.4 (noise).
    """

    def of(t, name):
        h = nn.Dense(features, kernel_init=init, dtype=dtype, name=f"{name}_1")(sinusoidal(t, channels, freq_shift))
        return nn.Dense(features, kernel_init=init, dtype=dtype, name=f"{name}_2")(nn.silu(h))

    h = of(t, "time")
    if num_labels:
        h += nn.Embed(num_labels, features, embedding_init=label_init, dtype=dtype, name="label")(condition.labels)
    if condition.noise is not None:  # in [0, 1], and the frequencies are made for times up to 1000
        h += of(1000 * jnp.asarray(condition.noise), "noise")
    return h


def joined(x: Images, condition: Condition) -> Features:
    """x and beside its channels those of the image of the condition, if there is one.

    Raises:
      InputError: the two are not of one size.
    """
    if condition.image is None:
        return x
    (height, width), size = condition.image.shape[1:3], x.shape[1:3]
    if (height, width) != size:
        raise InputError(
            f"condition.image is {height} x {width}, but its channels join those of an image of {size[0]} x {size[1]}: "
            "resize it to that."
        )
    return jnp.concatenate([x, condition.image], axis=-1)
