"""The U-Net told a text, an image and a class, against diffusers' UNet2DConditionModel with the same random weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from ddpm.condition import Condition
from ddpm.models.layers import CrossAttention
from ddpm.models.unet import UNet

from .convert import unet_params

BEFORE = {  # of the names that the U-Net without conditions has not
    r"transformer_blocks\.0\.attn1\.": "self_",
    r"transformer_blocks\.0\.attn2\.": "cross_",
    r"transformer_blocks\.0\.ff\.net\.0\.proj": "mlp_1",
    r"transformer_blocks\.0\.ff\.net\.2": "mlp_2",
    r"transformer_blocks\.0\.": "",
}
TEXT = 24  # features of a token
OURS = dict(channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,), num_heads=4, attention="transformer")
THEIRS = dict(
    block_out_channels=(128, 256),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=TEXT,
    attention_head_dim=4,  # heads, for all its name
    norm_eps=1e-6,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
)
MASKS = {"all": None, "some": [[True] * 7, [True] * 3 + [False] * 4, [False, True] + [False] * 5]}


def randomised(theirs):
    """All weights random: what is 0 or 1 at first would hide what it multiplies."""
    generator = torch.Generator().manual_seed(0)
    for name, weights in theirs.requires_grad_(False).named_parameters():
        weights.normal_(0, 0.1 if weights.ndim == 1 else weights[0].numel() ** -0.5, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weights += 1
    return theirs.eval()


def params_of(theirs):
    flat = dict(theirs.state_dict())
    label = flat.pop("class_embedding.weight", None)
    for old, new in BEFORE.items():
        flat = {re.sub(old, new, name): weights for name, weights in flat.items()}
    params = unet_params(flat, len(theirs.down_blocks))
    return params | ({} if label is None else {"label": {"embedding": jnp.asarray(label.numpy())}})


def moved(x):
    return torch.from_numpy(np.array(np.moveaxis(x, -1, 1)))


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def told(mask, **more):
    return Condition(text=drawn(3, 7, TEXT, seed=1), mask=None if mask is None else jnp.asarray(mask), **more)


def compared(ours, theirs, x, condition, **more):
    t = np.array([1, 500, 999])
    expected = theirs(
        moved(x),
        torch.from_numpy(t),
        torch.from_numpy(np.array(condition.text)),
        encoder_attention_mask=None if condition.mask is None else torch.from_numpy(np.array(condition.mask)),
        **more,
    ).sample
    noised = x[..., : ours.out_channels]
    params, template = params_of(theirs), jax.eval_shape(ours.init, jax.random.key(0), noised, t, condition)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, template)
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(ours.apply)({"params": params}, noised, t, condition)
    np.testing.assert_allclose(np.moveaxis(actual, -1, 1), expected, rtol=0, atol=1e-4)
    return actual


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_unet_told_a_text_computes_what_diffusers_computes(mask):
    theirs = randomised(UNet2DConditionModel(in_channels=3, out_channels=3, **THEIRS))
    for name, weights in theirs.named_parameters():
        if "proj_in" in name:
            weights *= 0.02  # tokens of little variance show the epsilon of the norms
    with_text = compared(UNet(3, **OURS), theirs, drawn(3, 8, 12, 3), told(mask))
    if mask is None:  # and the text is heard
        other = Condition(text=drawn(3, 7, TEXT, seed=2))
        params = {"params": params_of(theirs)}
        without = jax.jit(UNet(3, **OURS).apply)(params, drawn(3, 8, 12, 3), np.array([1, 500, 999]), other)
        assert np.abs(with_text - without).max() > 1e-2


def test_unet_told_all_that_diffusers_knows_computes_the_same():
    theirs = UNet2DConditionModel(
        in_channels=5, out_channels=3, num_class_embeds=6, resnet_time_scale_shift="scale_shift", **THEIRS
    )
    x, labels = drawn(3, 8, 8, 5), jnp.array([0, 5, 2])
    condition = told(MASKS["some"], labels=labels, image=x[..., 3:])
    ours = UNet(3, num_labels=6, scale_shift=True, **OURS)
    compared(ours, randomised(theirs), x, condition, class_labels=torch.from_numpy(np.array(labels)))


# Two implementations of theirs: with a kernel of PyTorch's, and in the open.
@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_cross_attention_is_that_of_diffusers_with_normed_tokens(mask, processor):
    theirs = randomised(
        Attention(
            query_dim=32,
            cross_attention_dim=TEXT,
            heads=4,
            dim_head=8,
            bias=True,
            norm_num_groups=8,
            cross_attention_norm="layer_norm",
            residual_connection=True,
            eps=1e-6,
            processor=processor(),
        )
    )
    renamed = {"group_norm": "norm", "norm_cross": "norm_tokens", "to_q": "query", "to_k": "key", "to_v": "value"}
    params = {}
    for name, weights in theirs.state_dict().items():
        module, leaf = name.replace("to_out.0", "out").split(".")
        kind = leaf if leaf == "bias" else "kernel" if weights.ndim == 2 else "scale"
        params.setdefault(renamed.get(module, module), {})[kind] = jnp.asarray(weights.numpy().T)
    x, text = 1e-3 * drawn(3, 4, 6, 32), 1e-3 * drawn(3, 7, TEXT, seed=1)  # little variance, as above
    bias = None
    if mask is not None:
        bias = torch.where(torch.tensor(mask), 0.0, -10_000.0)[:, None, :]
    expected = theirs(moved(x), torch.from_numpy(np.array(text)), attention_mask=bias)
    mask = None if mask is None else jnp.asarray(mask)
    with jax.default_matmul_precision("highest"):
        actual = CrossAttention(4, jnp.dtype("float32")).apply({"params": params}, x, text, mask)
    np.testing.assert_allclose(np.moveaxis(actual, -1, 1), expected, rtol=0, atol=1e-5)
