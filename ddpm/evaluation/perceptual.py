"""How far apart two images look to a network that knows pictures."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddpm.evaluation.features.efficientnet import efficientnet
from ddpm.models.efficientnet import EfficientNetLite0
from ddpm.shapes import Images, PerExample

LAYERS = tuple(f"block_{i}.project" for i in (0, 1, 3, 5, 8, 11, 15))  # the first of each stage


def perceptual_distance(path: str = "") -> Callable[[Images, Images], PerExample]:
    """(x, y) -> sum over layers of the mean over places of |f(x) - f(y)|^2, f the features of a place at unit length.

    As LPIPS, but by EfficientNet-Lite0 and without weights learned from people's judgement: not the figure of papers.

    Args:
      path: of the network's weights; '' looks for the installed package that carries them.
    Raises:
      InputError: there are none.

    Zhang et al. 2018, Eq. 1.
    """
    params = efficientnet(path).params
    model = EfficientNetLite0()

    def features(x):
        _, captured = model.apply(
            {"params": params},
            (x + 1) * 127.5,
            capture_intermediates=lambda module, method: module.name in LAYERS,
            mutable=["intermediates"],
        )
        return [captured["intermediates"][name]["__call__"][0] for name in LAYERS]

    def distance(x, y):
        pairs = zip(features(x), features(y), strict=True)
        return sum(jnp.mean(jnp.sum((_unit(a) - _unit(b)) ** 2, axis=-1), axis=(1, 2)) for a, b in pairs)

    return distance


def _unit(h: jax.Array) -> jax.Array:
    return h * jax.lax.rsqrt(jnp.sum(h**2, axis=-1, keepdims=True) + 1e-10)
