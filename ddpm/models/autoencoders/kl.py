"""The autoencoder of latent diffusion: a Gaussian at each place, held near N(0, 1)."""

import math

import jax.numpy as jnp

from ddpm.diffusion import gaussian
from ddpm.models.autoencoders.encoder_decoder import Code, Convolutional, Latents
from ddpm.rng import normal
from ddpm.shapes import Images, Keys


class KL(Convolutional):
    """AutoencoderKL: z ~ N(mean, exp(log_variance)), both said by the encoder.

    Args:
      image_channels, channels, channel_mult, num_res_blocks, latent_channels, norm_groups, quant_conv, dtype: as for `Convolutional`.
      kl_weight: of the divergence, in nats for each channel of each pixel; 1e-6 barely holds the latents together.

    Rombach et al. 2022, section 3.1 and appendix G; Kingma and Welling 2014.
    """

    kl_weight: float = 1e-6
    of_code = 2

    def __call__(self, x: Images) -> Images:
        return self.decode(self.latents(x))

    def encode(self, x: Images) -> tuple[Latents, Latents]:
        """Mean and log variance of the latents of images, [batch, height / factor, width / factor, latent_channels] each."""
        mean, log_variance = jnp.split(self.to_code(x).astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def latents(self, x: Images) -> Latents:
        """The mean, which stands for the images where nothing is drawn."""
        return self.encode(x)[0]

    def code(self, x: Images, keys: Keys) -> Code:
        """One draw of the latents of each image by its key.

        penalty = kl_weight KL(N(mean, variance) || N(0, 1)) / dims,  rate = KL / (dims log 2)
        """
        mean, log_variance = self.encode(x)
        z = mean + jnp.exp(0.5 * log_variance) * normal(keys, mean.shape[1:])
        zero = jnp.zeros_like(mean)
        kl = gaussian.kl(mean, log_variance, zero, zero).sum(axis=(1, 2, 3)) / math.prod(x.shape[1:])
        return Code(z, self.kl_weight * kl, kl / math.log(2), {"kl": kl.mean()})
