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


@pytest.fixture(params=[CIFAR, SCALE_SHIFT], ids=["cifar10", "scale_shift"], scope="module")
def networks(request):
    """Our network and diffusers', and the shape of an image."""
    theirs = UNet2DModel(**SHARED, **request.param["theirs"]).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, weights in theirs.named_parameters():  # all of them: a zero or a one would hide what it multiplies
        fan_in = weights[0].numel()
        weights.normal_(0, fan_in**-0.5 if weights.ndim > 1 else 0.1, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weights += 1
    return UNet(**request.param["ours"]), theirs, request.param["shape"]


def params_of(theirs):
    return {"params": unet_params(theirs.state_dict(), len(theirs.down_blocks))}


def test_unet_has_the_parameters_of_diffusers(networks):
    ours, theirs, shape = networks
    template = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.ones(1, int))
    assert jax.tree.map(jnp.shape, params_of(theirs)) == jax.tree.map(jnp.shape, template)


def test_cifar10_network_has_the_size_of_the_paper(): ...


# Features of little variance show the epsilon of the norms, which those of unit variance hide.
@pytest.mark.parametrize("scale", [1, 1e-3])
def test_unet_computes_what_diffusers_computes(networks, scale):
    ours, theirs, shape = networks
    x = np.random.default_rng(0).standard_normal((3, *shape), np.float32)
    t = np.array([1, 500, 999])
    saved = {k: v.clone() for k, v in theirs.conv_in.state_dict().items()}
    for w in theirs.conv_in.parameters():
        w *= scale
    expected = (
        theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(t))
        .sample.numpy()
        .transpose(0, 2, 3, 1)
    )
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(ours.apply)(params_of(theirs), x, t)
    theirs.conv_in.load_state_dict(saved)
    print("UNET", scale, expected.std(), np.abs(expected).max(), np.abs(actual - expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)
