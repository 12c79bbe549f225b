"""Pixels themselves as features: for images so small that no network is needed, such as 8 x 8 digits."""

import jax.numpy as jnp

from ddpm.evaluation.network import FeatureNetwork


def pixels() -> FeatureNetwork:
    """The pixels in [0, 1], [height * width * channels] an image."""

    def apply(params, images):
        return {"pool": images.reshape(len(images), -1).astype(jnp.float32) / 255}

    return FeatureNetwork("pixels", "-", "pixels in [0, 1], as they are", ("pool",), {}, apply)
