"""The networks of autoencoders, and their losses by themselves. Against diffusers: tests/parity/test_autoencoders.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm.autoencoding import pixel_losses
from ddpm.autoencoding.adversarial import adaptive_weight, discriminator_loss, generator_loss
from ddpm.autoencoding.latent_statistics import moved
from ddpm.autoencoding.psnr import psnr
from ddpm.errors import InputError
from ddpm.models.autoencoders.kl import KL
from ddpm.models.autoencoders.vq import VQ, codebook_loss, rounded, straight_through
from ddpm.models.patch_discriminator import PatchGAN

RNG = np.random.default_rng(0)


def images(n=2, size=8, channels=1):
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (n, size, size, channels)), jnp.float32)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def made(network, **options):
    """A small network and its parameters, none of which is 0."""
    model = network(1, **dict(channels=8, channel_mult=(1, 2), num_res_blocks=1, latent_channels=3) | options)
    params = model.init(jax.random.key(0), images())["params"]
    leaves, tree = jax.tree.flatten(params)
    noise = [0.05 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys(len(leaves)), leaves, strict=True)]
    return model, jax.tree.unflatten(tree, [leaf + more for leaf, more in zip(leaves, noise, strict=True)])


def apply(model, params, method, *args):
    return jax.jit(lambda params, *args: model.apply({"params": params}, *args, method=method))(params, *args)


def test_stable_diffusions_autoencoder_has_its_number_of_parameters():
    params = jax.eval_shape(lambda: KL(3).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 83_653_863


@pytest.mark.parametrize("network", [KL, VQ])
@pytest.mark.parametrize("levels", [3, 4, 5])
def test_latents_are_smaller_by_the_factor(network, levels):
    model = network(3, channels=8, channel_mult=(1,) * levels, num_res_blocks=1, latent_channels=5)
    x = jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
    z = jax.eval_shape(lambda params, x: model.apply(params, x, method="latents"), params, x)
    assert model.factor == 2 ** (levels - 1) and z.shape == (2, 32 // model.factor, 48 // model.factor, 5)
    assert jax.eval_shape(lambda params, z: model.apply(params, z, method="decode"), params, z).shape == x.shape


@pytest.mark.parametrize("network", [KL, VQ])
def test_an_image_alone_is_coded_as_in_a_batch(network):
    model, params = made(network)
    x = images(3)
    batch, alone = (apply(model, params, "code", x[at], keys(3)[at]) for at in (slice(3), slice(1, 2)))
    np.testing.assert_allclose(batch.z[1:2], alone.z, atol=1e-5)
    np.testing.assert_allclose(batch.penalty[1:2], alone.penalty, rtol=1e-4)


def test_the_divergence_is_the_closed_form_and_what_draws_say():
    model, params = made(KL, kl_weight=0.5)
    x = images(1)
    mean, log_variance = (np.asarray(a, np.float64) for a in apply(model, params, "encode", x))
    code = apply(model, params, "code", x, keys(1))
    closed = 0.5 * np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance)
    assert float(code.penalty[0]) == pytest.approx(0.5 * closed / 64, rel=1e-4)
    assert float(code.rate[0]) == pytest.approx(closed / 64 / math.log(2), rel=1e-4)
    eps = np.random.default_rng(2).standard_normal((4000, *mean.shape[1:]))
    z = mean + np.exp(log_variance / 2) * eps
    log_ratio = (z**2 - eps**2 - log_variance).sum(axis=(1, 2, 3)) / 2  # log q(z) - log p(z)
    assert closed == pytest.approx(log_ratio.mean(), abs=4 * log_ratio.std() / math.sqrt(len(z)))


def test_latents_are_drawn_from_what_the_encoder_says():
    model, params = made(KL)
    x = jnp.repeat(images(1), 4000, axis=0)
    mean, log_variance = (np.asarray(a[0]) for a in apply(model, params, "encode", x[:1]))
    z = np.asarray(apply(model, params, "code", x, keys(4000)).z)
    sigma = np.exp(log_variance / 2)
    np.testing.assert_allclose((z.mean(axis=0) - mean) / sigma, 0, atol=5 / math.sqrt(4000))
    np.testing.assert_allclose(z.std(axis=0) / sigma, 1, atol=5 / math.sqrt(8000))


def test_log_variances_are_clamped():
    model, params = made(KL)
    params["quant"]["bias"] = jnp.float32([0, 0, 0, -99, 99, 0])
    _, log_variance = apply(model, params, "encode", images())
    assert log_variance.min() == -30 and log_variance.max() == 20


def test_the_nearest_code_is_the_nearest():
    model, params = made(VQ, codes=20)
    params["codebook"] = jnp.asarray(RNG.standard_normal((20, 3)), jnp.float32)
    z = jnp.asarray(RNG.standard_normal((2, 4, 4, 3)), jnp.float32)
    z_q, index = apply(model, params, "quantise", z)
    expected = np.argmin(((np.asarray(z)[..., None, :] - np.asarray(params["codebook"])) ** 2).sum(-1), axis=-1)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(z_q, np.asarray(params["codebook"])[expected], atol=1e-6)
    again, same = apply(model, params, "quantise", z_q)
    np.testing.assert_array_equal(same, index)
    np.testing.assert_allclose(apply(model, params, "decode", z), apply(model, params, "decode", again), atol=1e-5)


def test_the_gradient_goes_straight_through_the_rounding():
    codebook = jnp.asarray(RNG.standard_normal((5, 3)), jnp.float32)
    z, slope = (jnp.asarray(RNG.standard_normal((2, 2, 2, 3)), jnp.float32) for _ in range(2))

    def loss(z, codebook):
        return jnp.sum(slope * straight_through(z, rounded(z, codebook)[0]))

    of_z, of_codes = jax.grad(loss, argnums=(0, 1))(z, codebook)
    np.testing.assert_array_equal(of_z, slope)
    np.testing.assert_array_equal(of_codes, 0)


def test_the_codebook_loss_moves_codes_by_1_and_latents_by_beta():
    z, nearest = (jnp.asarray(RNG.standard_normal((1, 2, 2, 3)), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(
        codebook_loss(z, nearest, 0.25), [1.25 * np.mean((np.asarray(z) - np.asarray(nearest)) ** 2)], rtol=1e-6
    )
    of_z, of_codes = jax.grad(lambda *a: codebook_loss(*a, 0.25).sum(), argnums=(0, 1))(z, nearest)
    np.testing.assert_allclose(of_z, 0.25 * 2 * (z - nearest) / 12, rtol=1e-5)
    np.testing.assert_allclose(of_codes, 2 * (nearest - z) / 12, rtol=1e-5)


def test_what_codes_cost_and_how_many_are_used():
    model, params = made(VQ, codes=4)
    code = apply(model, params, "code", images(), keys(2))
    np.testing.assert_allclose(code.rate, 2 * 16 / 64)  # 2 bits for each of 4 x 4 places, of 8 x 8 pixels
    _, index = apply(model, params, "quantise", apply(model, params, "encode", images()))
    share = np.bincount(np.ravel(index), minlength=4) / index.size
    assert float(code.figures["perplexity"]) == pytest.approx(np.prod(share[share > 0] ** -share[share > 0]), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(channels=0), "channels = 0 must be at least 1."),
        (dict(latent_channels=0), "latent_channels = 0 must be at least 1."),
        (dict(channel_mult=()), "channel_mult = () must be positive integers, one a level, as (1, 2, 4, 4)."),
        (dict(dtype="float17"), "unknown autoencoder dtype 'float17'. Did you mean 'bfloat16'?"),
        (dict(norm_groups=3), "norm_groups = 3 does not divide 8 times (1, 2) channels."),
        (
            dict(channel_mult=(1, 1, 1, 1, 1)),
            "images of 8 x 8 are not divided by the 16 pixels that 5 levels make one: ",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        made(KL, **options)
    assert str(caught.value).startswith(message)


def test_a_discriminator_judges_patches_of_images_of_any_size():
    model = PatchGAN(4)
    params = model.init(jax.random.key(0), images())
    assert model.apply(params, images()).shape == (2, 1, 1, 1)
    assert jax.eval_shape(model.apply, params, images(size=64)).shape == (2, 8, 8, 1)


def test_the_hinge_losses_by_hand():
    real, fake = jnp.float32([2.0, 0.5, -1.0]), jnp.float32([-3.0, 0.0, 1.0])
    assert float(discriminator_loss(real, fake)) == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3) / 2)
    assert float(generator_loss(fake)) == pytest.approx(2 / 3)


def test_the_adaptive_weight_by_hand():
    weight = adaptive_weight({"a": jnp.float32([3, 4])}, {"a": jnp.float32([0, 2])})
    assert float(weight) == pytest.approx(2.5, rel=1e-6)
    assert float(adaptive_weight(jnp.ones(3), jnp.zeros(3))) == 1e4  # at most
    np.testing.assert_array_equal(jax.grad(lambda x: adaptive_weight(x, jnp.ones(3)))(jnp.ones(3)), 0)


def test_moving_statistics_are_the_moments_of_all_batches_by_their_weights():
    rng = np.random.default_rng(0)
    batches = [rng.normal([5, -1, 200], [0.5, 2, 3], (4, 2, 2, 3)).astype(np.float32) for _ in range(6)]
    decays = [0.1, 0.3, 0.5, 0.6, 0.7, 0.75]
    statistics = {"mean": jnp.zeros(3), "std": jnp.ones(3)}
    for z, decay in zip(batches, decays, strict=True):
        statistics = moved(statistics, jnp.asarray(z), decay)
    shares = [(1 - d) * np.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    moments = [np.stack([z.reshape(-1, 3).astype(np.float64) ** k for z in batches]).mean(axis=1) for k in (1, 2)]
    first, second = (np.tensordot(shares, moment, 1) for moment in moments)
    second += np.prod(decays)  # of the N(0, 1) it starts from
    np.testing.assert_allclose(statistics["mean"], first, rtol=1e-5)
    np.testing.assert_allclose(statistics["std"], np.sqrt(second - first**2), rtol=1e-4)


def test_pixel_losses_and_psnr_by_hand():
    x = jnp.zeros((2, 2, 2, 1))
    x_hat = jnp.stack([jnp.full((2, 2, 1), 0.5), jnp.float32([[[0.0], [2.0]], [[0.0], [0.0]]])])
    np.testing.assert_allclose(pixel_losses.l1(x, x_hat), [0.5, 0.5])
    np.testing.assert_allclose(pixel_losses.l2(x, x_hat), [0.25, 1.0])
    np.testing.assert_allclose(psnr(x, x_hat), [10 * np.log10(16), 10 * np.log10(16)], rtol=1e-6)  # 2 is clipped to 1
    levels = 10 * np.log10(255**2 * 12)
    np.testing.assert_allclose(psnr(x, x), levels, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_vq_brings_latents_and_codes_together_by_its_beta(beta):
    model, params = made(VQ, codes=16, beta=beta)
    z = apply(model, params, "encode", images())
    nearest, _ = rounded(z, params["codebook"])
    distance = jnp.mean((z - nearest) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(
        apply(model, params, "code", images(), keys(2)).penalty, (1 + beta) * distance, rtol=1e-5
    )
    slope = jax.grad(lambda params: apply(model, params, "code", images(), keys(2)).penalty.sum())(params)
    assert jnp.abs(slope["codebook"]).max() > 0
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope["encoder"]))
    assert (largest > 0) == (beta > 0)  # the encoder keeps to its codes for beta alone


def test_the_gradient_of_images_passes_the_rounding_of_vq():
    model, params = made(VQ, codes=16)
    z = apply(model, params, "encode", images())
    nearest, _ = rounded(z, params["codebook"])
    slope = jax.grad(lambda z: apply(model, params, "decode", z).sum())
    assert jnp.abs(slope(z)).max() > 0
    np.testing.assert_allclose(slope(z), slope(nearest), rtol=1e-4, atol=1e-6)
