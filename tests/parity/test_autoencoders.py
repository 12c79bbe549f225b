"""Autoencoders of folders against diffusers' AutoencoderKL and VQModel, which wrote them."""

import json

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from safetensors.numpy import load_file, save_file

from ddpm import autoencoders
from ddpm.errors import InputError
from ddpm.interop import autoencoder_kl, weight_file


def options(widths, **more):
    count = len(widths)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * count, "up_block_types": ("UpDecoderBlock2D",) * count}
    return {"block_out_channels": widths, "norm_num_groups": 8, **blocks, **more}


TINY = options((16, 32), latent_channels=4)
KLS = {
    "f2": TINY,
    "f8, 3 blocks": options((16, 16, 32, 48), layers_per_block=3, latent_channels=3, norm_num_groups=16),
    "f4, grey, no quant_conv": options(
        (32, 64, 64),
        layers_per_block=2,
        in_channels=1,
        out_channels=1,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    ),
}
VQS = {
    "f4": options((16, 32, 32), latent_channels=3, num_vq_embeddings=50),
    "f2, 2 blocks, scaled": options(
        (16, 48), layers_per_block=2, latent_channels=5, num_vq_embeddings=9, norm_num_groups=16, scaling_factor=0.7
    ),
    "f1, grey": options((24,), in_channels=1, out_channels=1, latent_channels=2, num_vq_embeddings=300),
}


def written(theirs, folder):
    """Their network with random weights, all of them, written to a folder."""
    theirs = theirs.requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weights in theirs.named_parameters():
        spread = 0.1 if weights.ndim == 1 else weights[0].numel() ** -0.5
        weights.normal_(0, 1.0 if "embedding" in name else spread, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weights += 1
    theirs.save_pretrained(folder)
    return theirs


def image(channels, shape=(24, 32)):
    return np.random.default_rng(0).uniform(-1, 1, (2, *shape, channels)).astype(np.float32)


def nchw(x):
    return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())


def nhwc(x):
    return x.numpy().transpose(0, 2, 3, 1)


def ours(read, method, x):
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda params, x: read.module.apply({"params": params}, x, method=method))(read.params, x)


@pytest.mark.parametrize("name", KLS)
def test_a_kl_autoencoder_is_that_of_diffusers(name, tmp_path):
    theirs = written(AutoencoderKL(**KLS[name]), tmp_path)
    read = autoencoder_kl.read(tmp_path)
    x = image(KLS[name].get("in_channels", 3))
    posterior = theirs.encode(nchw(x)).latent_dist
    mean, log_variance = ours(read, "encode", x)
    np.testing.assert_allclose(mean, nhwc(posterior.mean), atol=1e-4)
    np.testing.assert_allclose(log_variance, nhwc(posterior.logvar), atol=1e-4)
    z = 2 * np.random.default_rng(1).standard_normal(mean.shape).astype(np.float32)
    np.testing.assert_allclose(ours(read, "decode", z), nhwc(theirs.decode(nchw(z)).sample), atol=1e-4)
    assert read.scaling_factor == theirs.config.scaling_factor
    assert read.shift_factor == (theirs.config.shift_factor or 0)


@pytest.mark.parametrize("name", VQS)
def test_a_vq_autoencoder_is_that_of_diffusers(name, tmp_path):
    theirs = written(VQModel(**VQS[name]), tmp_path)
    read = autoencoder_kl.read(tmp_path)
    assert read.scaling_factor == theirs.config.scaling_factor
    x = image(VQS[name].get("in_channels", 3))
    z = theirs.encode(nchw(x)).latents
    np.testing.assert_allclose(ours(read, "encode", x), nhwc(z), atol=1e-4)
    nearest, _, (_, _, index) = theirs.quantize(z)
    z_q, ours_index = ours(read, "quantise", nhwc(z))
    np.testing.assert_array_equal(ours_index.ravel(), index.numpy().ravel())
    np.testing.assert_allclose(z_q, nhwc(nearest), atol=1e-5)
    np.testing.assert_allclose(ours(read, "decode", nhwc(z)), nhwc(theirs.decode(z).sample), atol=1e-4)


def test_log_variances_are_clamped_where_diffusers_does(tmp_path):
    theirs = written(AutoencoderKL(**TINY), tmp_path)
    arrays = load_file(tmp_path / f"{weight_file.NAME}.safetensors")
    arrays["quant_conv.bias"] = np.float32([0, 0, 0, 0, -99, 99, -99, 99])
    save_file(arrays, tmp_path / f"{weight_file.NAME}.safetensors")
    theirs = AutoencoderKL.from_pretrained(tmp_path)
    x = image(3)
    log_variance = ours(autoencoder_kl.read(tmp_path), "encode", x)[1]
    assert log_variance.min() == -30 and log_variance.max() == 20
    np.testing.assert_allclose(log_variance, nhwc(theirs.encode(nchw(x)).latent_dist.logvar.detach()), atol=1e-4)


def test_a_run_can_diffuse_in_its_latents(tmp_path):
    theirs = written(AutoencoderKL(**KLS["f4, grey, no quant_conv"]), tmp_path)
    read = autoencoders.read(str(tmp_path))
    assert (read.factor, read.channels, read.colours) == (4, 16, 1)
    x = image(1)
    z = read.scale.down(np.asarray(jax.jit(read.encode)(read.params, x)))
    seen = (theirs.encode(nchw(x)).latent_dist.mean - theirs.config.shift_factor) * theirs.config.scaling_factor
    np.testing.assert_allclose(z, nhwc(seen), atol=1e-4)
    decoded = theirs.decode(seen / theirs.config.scaling_factor + theirs.config.shift_factor).sample
    np.testing.assert_allclose(jax.jit(read.decode)(read.params, read.scale.up(z)), nhwc(decoded), atol=1e-4)


def test_the_old_names_of_attention_are_known(tmp_path):
    written(AutoencoderKL(**TINY), tmp_path)
    new = autoencoder_kl.read(tmp_path).params
    old = {}
    for name, array in load_file(tmp_path / f"{weight_file.NAME}.safetensors").items():
        for now, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(now, before)
        old[name] = array
    save_file(old, tmp_path / f"{weight_file.NAME}.safetensors")
    jax.tree.map(np.testing.assert_array_equal, autoencoder_kl.read(tmp_path).params, new)


def test_what_is_no_autoencoder_is_told(tmp_path):
    def says(message):
        return pytest.raises(InputError, match=message)

    with says("no autoencoder in .*: it holds no config.json. Give a folder that diffusers wrote, such as vae of "):
        autoencoder_kl.read(tmp_path / "nowhere")
    written(AutoencoderKL(**TINY), tmp_path)
    config, weights = tmp_path / autoencoder_kl.CONFIG, tmp_path / f"{weight_file.NAME}.safetensors"
    good, arrays, raw = json.loads(config.read_text()), load_file(weights), weights.read_bytes()
    for change, message in (
        ({"_class_name": "UNet2DModel"}, "says _class_name = 'UNet2DModel': only AutoencoderKL and VQModel are read."),
        ({"act_fn": "gelu"}, "says act_fn = 'gelu': only 'silu' or 'swish' is read."),
        ({"mid_block_add_attention": False}, "says mid_block_add_attention = False: only True is read."),
        (
            {"use_quant_conv": False},
            "says use_quant_conv = False: only with as much of use_post_quant_conv is it read.",
        ),
        ({"up_block_types": ["UpBlock2D"] * 2}, "only UpDecoderBlock2D is read, for each of .* channels."),
        ({"block_out_channels": [16, 64]}, "is of shape .* its configuration is of another network."),
    ):
        config.write_text(json.dumps(good | change))
        with says(message):
            autoencoder_kl.read(tmp_path)
    config.write_text("{")
    with says("config.json cannot be read .* Copy it again."):
        autoencoder_kl.read(tmp_path)
    config.write_text(json.dumps(good))
    save_file({name: array for name, array in arrays.items() if name != "encoder.conv_in.bias"}, weights)
    with says("holds no 'encoder.conv_in.bias', which this network needs for encoder/conv_in/bias: "):
        autoencoder_kl.read(tmp_path)
    weights.write_bytes(raw[:-100])
    with says("cannot be read .* Copy it again."):
        autoencoder_kl.read(tmp_path)
    weights.unlink()
    with says("holds no diffusion_pytorch_model.safetensors: copy"):
        autoencoder_kl.read(tmp_path)
