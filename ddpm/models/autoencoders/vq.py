"""The vector-quantised autoencoder: at each place one of a book of codes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ddpm.models.autoencoders.encoder_decoder import Code, Convolutional, Latents
from ddpm.models.layers import Features
from ddpm.shapes import Images, Keys


class VQ(Convolutional):
    """VQGAN's autoencoder: latents become the nearest of `codes` vectors, and are rounded again whenever they are decoded.

    Args:
      image_channels, channels, channel_mult, num_res_blocks, latent_channels, norm_groups, quant_conv, dtype: as for `Convolutional`.
      codes: vectors in the book, at least 2.
      beta: how much the encoder keeps to its codes, relative to how they follow it.

    van den Oord et al. 2017 (VQ-VAE); Esser et al. 2021 (VQGAN), section 3.1.
    """

    codes: int = 1024
    beta: float = 0.25

    def setup(self):
        super().setup()

        def uniform(key, shape):
            return jax.random.uniform(key, shape, minval=-1 / self.codes, maxval=1 / self.codes)

        self.codebook = self.param("codebook", uniform, (self.codes, self.latent_channels))

    def __call__(self, x: Images) -> Images:
        return self.decode(self.encode(x))

    def encode(self, x: Images) -> Latents:
        """Latents [batch, height / factor, width / factor, latent_channels] of images, not yet rounded to codes."""
        return self.to_code(x).astype(jnp.float32)

    def latents(self, x: Images) -> Latents:
        """The same: a diffusion model learns them, and leaves it to the decoder to round them."""
        return self.encode(x)

    def quantise(self, z: Latents) -> tuple[Latents, Int[Array, "batch rows columns"]]:
        """The nearest codes of latents, and which they are; the gradient of the codes goes to the latents as it is.

        van den Oord et al. 2017, Eq. 1 and 2.
        """
        nearest, index = rounded(z, self.codebook)
        return straight_through(z, nearest), index

    def features(self, z: Latents) -> Features:
        """What the decoder's last layer sees of the codes of latents."""
        return super().features(self.quantise(z)[0])

    def code(self, x: Images, keys: Keys) -> Code:
        """Codes of images, the loss that brings codes and latents together, log2(codes) bits for each place."""
        z = self.encode(x)
        nearest, index = rounded(z, self.codebook)
        loss = codebook_loss(z, nearest, self.beta)
        share = jnp.bincount(index.ravel(), length=self.codes) / index.size
        entropy = -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12)))
        bits = math.log2(self.codes) * math.prod(index.shape[1:]) / math.prod(x.shape[1:])
        figures = {"codebook_loss": loss.mean(), "perplexity": jnp.exp(entropy)}
        return Code(z, loss, jnp.full(len(x), bits), figures)


def rounded(z: Latents, codebook: Float[Array, "codes channels"]) -> tuple[Latents, Int[Array, "batch rows columns"]]:
    """The nearest code of each latent, and its row in the book."""
    squares = jnp.sum(codebook**2, axis=-1)[None, None, None]
    index = jnp.argmin(squares - 2 * z @ codebook.T, axis=-1)
    return codebook[index], index


def straight_through(z: Latents, nearest: Latents) -> Latents:
    """z + sg(nearest - z): the value of the codes, the gradient of the latents."""
    return z + jax.lax.stop_gradient(nearest - z)


def codebook_loss(z: Latents, nearest: Latents, beta: float | int) -> Float[Array, "batch"]:
    """mean (sg(z) - nearest)^2 + beta (z - sg(nearest))^2 of each example.

    van den Oord et al. 2017, Eq. 3; VQGAN's first code had beta at the other term.
    """
    stop = jax.lax.stop_gradient
    return jnp.mean((stop(z) - nearest) ** 2 + beta * (z - stop(nearest)) ** 2, axis=(1, 2, 3))
