"""The U-Net told a text, an image and a class, against diffusers' UNet2DConditionModel with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from text_folders import WIDTH, clip_folder

from ddpm import run, trained
from ddpm.condition import Condition
from ddpm.conditioning import conditioning
from ddpm.exports import export_run
from ddpm.models.layers import CrossAttention
from ddpm.training.checkpoint import checksums
from experiments import digits

from . import carried
from .carried import assert_same, randomised, theirs_of

TEXT = 24  # features of a token
THEIRS = dict(
    sample_size=(8, 16),
    block_out_channels=(32, 64),
    norm_num_groups=8,
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=TEXT,
    attention_head_dim=4,  # heads, for all its name
)
MASKS = {"all": None, "some": [[True] * 7, [True] * 3 + [False] * 4, [False, True] + [False] * 5]}


def drawn(*shape, seed=0):
    return jnp.asarray(carried.drawn(*shape, seed=seed))


def told(mask, **more):
    return Condition(text=drawn(3, 7, TEXT, seed=1), mask=None if mask is None else jnp.asarray(mask), **more)


def compared(theirs, x, condition, **more):
    t = np.array([1, 500, 999])
    expected = theirs(
        theirs_of(x),
        torch.from_numpy(t),
        torch.from_numpy(np.array(condition.text)),
        encoder_attention_mask=None if condition.mask is None else torch.from_numpy(np.array(condition.mask)),
        **more,
    ).sample
    ours, params_for = carried.carried(theirs)
    noised = x[..., : ours.out_channels]
    params = {"params": params_for(noised, t, condition)}
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(ours.apply)(params, noised, t, condition)
    assert_same(actual, expected)
    return actual, lambda condition: jax.jit(ours.apply)(params, noised, t, condition)


NETWORKS = {
    "as_tensorflow": dict(
        norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=4
    ),
    "stable_diffusion_1": dict(attention_head_dim=8, norm_num_groups=16),
    "stable_diffusion_2": dict(attention_head_dim=[2, 4], use_linear_projection=True),
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_unet_told_a_text_computes_what_diffusers_computes(options, mask):
    theirs = randomised(UNet2DConditionModel(in_channels=3, out_channels=3, **THEIRS | options))
    for name, weights in theirs.named_parameters():
        if "proj_in" in name:
            weights *= 0.02  # tokens of little variance show the epsilon of the norms
    with_text, of = compared(theirs, drawn(3, 8, 16, 3), told(mask))
    if mask is None:  # and the text is heard
        assert np.abs(with_text - of(Condition(text=drawn(3, 7, TEXT, seed=2)))).max() > 1e-2


def test_unet_told_all_that_diffusers_knows_computes_the_same():
    theirs = UNet2DConditionModel(
        in_channels=5, out_channels=3, num_class_embeds=6, resnet_time_scale_shift="scale_shift", **THEIRS
    )
    x, labels = drawn(3, 8, 16, 5), jnp.array([0, 5, 2])
    condition = told(MASKS["some"], labels=labels, image=x[..., 3:])
    compared(randomised(theirs), x, condition, class_labels=torch.from_numpy(np.array(labels)))


def test_a_sample_told_texts_is_theirs_before_and_after_export(tmp_path):
    clip = clip_folder(tmp_path / "clip")
    options = THEIRS | dict(sample_size=8, cross_attention_dim=WIDTH)
    theirs = randomised(UNet2DConditionModel(in_channels=3, out_channels=3, **options))
    theirs.save_pretrained(tmp_path / "pipeline" / "unet")
    scheduler = DDIMScheduler(timestep_spacing="trailing", beta_schedule="scaled_linear", prediction_type="sample")
    scheduler.save_pretrained(tmp_path / "pipeline" / "scheduler")
    config = digits.get_config()
    config.condition.text.name = "clip"
    config.condition.text.clip.update(path=str(clip), length=9, padded=True)
    carried.imported(tmp_path / "pipeline", tmp_path / "run", config)
    ours, x, prompts = run.load(tmp_path / "run"), np.asarray(drawn(2, 8, 8, 3)), ("red", "a cat")
    with jax.default_matmul_precision("highest"):
        sample = ours.sampler(num_steps=10, prompts=prompts).lead(ours.params, x)
    features, mask = conditioning(ours.config, ours.facts.shape, 0).encoder.encode(prompts)
    assert mask.all()
    export_run(tmp_path / "run", None, tmp_path / "out")
    exported = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet").requires_grad_(False).eval()
    for model, made in ((theirs, scheduler), (exported, DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler"))):
        y = theirs_of(x)
        made.set_timesteps(10)
        for t in made.timesteps:
            said = model(y, t, torch.from_numpy(features)).sample
            y = made.step(said, t, y, use_clipped_model_output=True).prev_sample
        assert_same(sample, y)
    again = carried.imported(tmp_path / "out", tmp_path / "again", config)
    assert checksums(again.params) == checksums(trained.read(tmp_path / "run").params)


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
    expected = theirs(theirs_of(x), torch.from_numpy(np.array(text)), attention_mask=bias)
    mask = None if mask is None else jnp.asarray(mask)
    with jax.default_matmul_precision("highest"):
        actual = CrossAttention(4, jnp.dtype("float32")).apply({"params": params}, x, text, mask)
    np.testing.assert_allclose(np.moveaxis(actual, -1, 1), expected, rtol=0, atol=1e-5)
