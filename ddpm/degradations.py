"""What a model that restores images is told of them in training, and of what it is given in sampling."""

import jax
import jax.numpy as jnp

from ddpm.condition import Condition
from ddpm.degradation import Degradation, block_means, rectangle
from ddpm.errors import InputError
from ddpm.rng import fold_in_all, normal


def super_resolution(factor: int = 4, noise: float | int = 0.0) -> Degradation:
    """Means of factor x factor pixels, brought back to size by cubic interpolation; with noise augmentation.

    image = sqrt(1 - s^2) resized + s eps,  s uniform in [0, noise], which the model is told.

    Args:
      factor: at least 2; it divides height and width.
      noise: the most noise, in [0, 1): a model trained with some forgives the faults of the images it is given.
    Raises:
      InputError: an argument out of its range. of: a size that the factor does not divide. given: more noise than in training.

    Saharia et al. 2021 (SR3); Ho et al. 2021 (cascaded diffusion), section 4.2.
    """
    if factor < 2:
        raise InputError(f"condition.image.super_resolution.factor = {factor} must be at least 2.")
    if not 0 <= noise < 1:
        raise InputError(f"condition.image.super_resolution.noise = {noise} is not in [0, 1); cascades use up to 0.5.")

    def size(full):
        if any(side % factor for side in full):
            raise InputError(
                f"images of {full[0]} x {full[1]} are not divided by factor {factor}: take another factor."
            )
        return full[0] // factor, full[1] // factor

    def told(low, s, keys):
        batch, height, width, channels = low.shape
        shape = (height * factor, width * factor, channels)
        resized = jax.image.resize(low, (batch, *shape), "cubic")
        level = s[:, None, None, None]
        image = jnp.sqrt(1 - level**2) * resized + level * normal(keys, shape)
        return Condition(image=image, noise=s)

    def of(x_0, keys):
        size(x_0.shape[1:3])
        u = jax.vmap(jax.random.uniform)(fold_in_all(keys, 0))
        return told(block_means(x_0, factor), noise * u, fold_in_all(keys, 1))

    def given(images, known, s, keys):
        if s and not noise:
            raise InputError(
                f"sampler.given_noise = {s} must be 0: the model was trained without condition.image.super_resolution.noise."
            )
        if not 0 <= s <= noise:
            raise InputError(
                f"sampler.given_noise = {s} is not in [0, {noise}], the noise that the model was trained with."
            )
        return told(images, jnp.full(len(images), s, jnp.float32), fold_in_all(keys, 1))

    return Degradation(of, given, size)


def inpainting() -> Degradation:
    """A rectangle of each image is unknown: its pixels are 0, and one more channel says 1 where they are known, else -1.

    Its sides are uniform in 1/4 to all of the image's, its place too.

    Saharia et al. 2022 (Palette), section 4; Rombach et al. 2022, section 4.5.
    """

    def told(images, known):
        known = known[..., None].astype(images.dtype)
        return Condition(image=jnp.concatenate([images * known, 2 * known - 1], axis=-1))

    def of(x_0, keys):
        return told(x_0, ~jax.vmap(lambda key: rectangle(key, x_0.shape[1:3]))(keys))

    return Degradation(of, lambda images, known, noise, keys: told(images, known), needs_known=True)
