"""The train step of an autoencoder: a pure function (state, batch, key) -> (state, metrics)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ddpm.autoencoding.adversarial import adaptive_weight, discriminator_loss, generator_loss
from ddpm.autoencoding.latent_statistics import moved
from ddpm.autoencoding.psnr import psnr
from ddpm.data.pipeline import Examples
from ddpm.data.pixels import to_images
from ddpm.rng import per_index
from ddpm.shapes import Images, Key, PerExample
from ddpm.training.state import State
from ddpm.training.step import ema_decay as decay_by_updates
from ddpm.training.step import take

LATENT_DECAY = decay_by_updates(0.99, True)  # of the statistics of latents: they forget the encoder that was


def autoencoder_step(
    code: Callable,
    latents: Callable,
    features: Callable,
    image: Callable,
    discriminate: Callable | None,
    tx: optax.GradientTransformation,
    ema_decay: Callable[[jax.Array], jax.Array],
    *,
    distance: Callable[[Images, Images], PerExample],
    weight: float | int = 0,
    start: int = 0,
    accumulate: int = 1,
) -> Callable[[State, Examples, Key], tuple[State, dict]]:
    """Makes the step: of the autoencoder on distance + penalty + weight lambda generator loss, of the discriminator on its own.

    lambda is the adaptive weight. Both are updated by one batch, each from what the other was before it. The statistics of
    the latents, those that the EMA's encoder gives, move on. What is not finite leaves all as it was and is counted.

    Args:
      code, latents, features, image, discriminate: of `Reconstruction`.
      tx: of 'autoencoder' and 'discriminator', each by itself.
      ema_decay, accumulate: as for `train_step`.
      distance: (x, x_hat) -> loss of each image in [-1, 1].
      weight: of the generator loss.
      start: updates after which the discriminator learns and is heard.

    Rombach et al. 2022, Eq. 25; Esser et al. 2021 (VQGAN), Eq. 4 to 7.
    """

    def step(state: State, batch: Examples, key: Key) -> tuple[State, dict]:
        x, params = to_images(batch.pixels), state.params
        keys = per_index(key, jnp.arange(len(x)))  # by place in the global batch, whatever the devices

        def reconstructed(autoencoder):
            made = code(autoencoder, x, keys)
            h = features(autoencoder, made.z)
            return (image(autoencoder, h), made.penalty.mean()), (made, h)

        (x_hat, penalty), pull, (made, h) = jax.vjp(reconstructed, params["autoencoder"], has_aux=True)
        reconstruction, slope = jax.value_and_grad(lambda x_hat: distance(x, x_hat).mean())(x_hat)
        figures = {
            "reconstruction": reconstruction,
            "psnr": psnr(x, x_hat).mean(),
            "rate": made.rate.mean(),
            **made.figures,
        }
        grads = {"latent": jax.tree.map(jnp.zeros_like, params["latent"])}
        if discriminate:
            _, pull_last = jax.vjp(lambda autoencoder: image(autoencoder, h), params["autoencoder"])

            def at_last_layer(slope):
                return pull_last(slope)[0]["out"]["kernel"]

            def deceit(x_hat):
                return generator_loss(discriminate(params["discriminator"], x_hat))

            def judgement(discriminator):
                return discriminator_loss(discriminate(discriminator, x), discriminate(discriminator, x_hat))

            heard = jnp.where(state.batch // accumulate >= start, 1.0, 0.0)
            deceived, other_slope = jax.value_and_grad(deceit)(x_hat)
            adaptive = adaptive_weight(at_last_layer(slope), at_last_layer(other_slope))
            slope += heard * weight * adaptive * other_slope
            judged, of_judge = jax.value_and_grad(judgement)(params["discriminator"])
            grads["discriminator"] = jax.tree.map(lambda grad: heard * grad, of_judge)
            figures |= {"generator": deceived, "discriminator": judged, "adaptive_weight": adaptive}
        (grads["autoencoder"],) = pull((slope, jnp.ones_like(penalty)))
        # Outside of what is taken only if all is finite: on CPU a convolution is slow inside a condition.
        z = latents(state.ema_params["autoencoder"], x)
        latent = moved(params["latent"], z, LATENT_DECAY(state.batch))

        def remember(new):
            return dataclasses.replace(
                new, params=new.params | {"latent": latent}, ema_params=new.ema_params | {"latent": latent}
            )

        loss = reconstruction + penalty
        new, metrics = take(state, loss, grads, tx, ema_decay, accumulate=accumulate, then=remember)
        return new, metrics | figures

    return step
