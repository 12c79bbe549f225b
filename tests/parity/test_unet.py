"""The U-Net against diffusers' UNet2DModel with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from ddpm.models.unet import UNet

from .convert import unet_params

SHARED = {"norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
CIFAR = {
    "ours": {"out_channels": 3},
    "theirs": {
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
    },
    "shape": (32, 32, 3),
}
SCALE_SHIFT = {
    "ours": {
        "out_channels": 1,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (4,),
        "num_heads": 4,
        "scale_shift": True,
    },
    "theirs": {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (128, 256),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 64,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 32,  # without it the middle attention of diffusers has no norm
    },
    "shape": (8, 12, 1),
}


@pytest.fixture(params=[CIFAR, SCALE_SHIFT], ids=["cifar10", "scale_shift"])
def networks(request):
    """Our network, diffusers', and the shape of an image."""
    theirs = UNet2DModel(**SHARED, **request.param["theirs"]).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, weights in theirs.named_parameters():  # all: what is 0 or 1 at first would hide what it multiplies
        weights.normal_(0, 0.1 if weights.ndim == 1 else weights[0].numel() ** -0.5, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weights += 1
    return UNet(**request.param["ours"]), theirs, request.param["shape"]


def params_of(theirs):
    return {"params": unet_params(theirs.state_dict(), len(theirs.down_blocks))}


def template_of(ours, shape):
    return jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.ones(1, int))


def test_unet_has_the_parameters_of_diffusers(networks):
    ours, theirs, shape = networks
    assert jax.tree.map(jnp.shape, params_of(theirs)) == jax.tree.map(jnp.shape, template_of(ours, shape))


def test_cifar10_unet_has_as_many_parameters_as_ddpm_cifar10():
    template = template_of(UNet(**CIFAR["ours"]), CIFAR["shape"])
    assert sum(leaf.size for leaf in jax.tree.leaves(template)) == 35_746_307


# First features of little variance show the epsilon of the norms, which is lost beside a variance of 1.
@pytest.mark.parametrize("amplitude", [1, 1e-3])
def test_unet_computes_what_diffusers_computes(networks, amplitude):
    ours, theirs, shape = networks
    for weights in theirs.conv_in.parameters():
        weights *= amplitude
    x = np.random.default_rng(0).standard_normal((3, *shape), np.float32)
    t = np.array([1, 500, 999])
    expected = theirs(torch.from_numpy(np.moveaxis(x, -1, 1)), torch.from_numpy(t)).sample
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(ours.apply)(params_of(theirs), x, t)
    np.testing.assert_allclose(np.moveaxis(actual, -1, 1), expected, rtol=0, atol=1e-4)
