"""diffusers' UNet2DModel imported, sampled, exported and imported again."""

import jax
import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel

from ddpm import config as configs
from ddpm import objective, run
from ddpm.condition import Condition
from ddpm.data.images import Facts
from ddpm.exports import export_run
from ddpm.imports import write_run
from ddpm.training.checkpoint import checksums
from experiments import digits

from .carried import TIMES, assert_same, drawn, imported, output, randomised, theirs_of

SMALL = dict(sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8)
HALF = dict(down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **SMALL)
NETWORKS = {
    "as_ddpm_cifar10": dict(
        attention_head_dim=None, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, **HALF
    ),
    "defaults": HALF,
    "scale_shift_learned_variance": dict(
        resnet_time_scale_shift="scale_shift", attn_norm_num_groups=8, out_channels=6, attention_head_dim=16, **HALF
    ),
    "resblock_updown": dict(
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        in_channels=1,
        out_channels=1,
        **SMALL,
    ),
    "three_levels_not_square": dict(
        sample_size=(8, 16),
        block_out_channels=(32, 32, 64),
        down_block_types=("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
        norm_num_groups=16,
    ),
}


def saved(folder, network, scheduler=None):
    network.save_pretrained(folder / "unet")
    (scheduler or DDPMScheduler()).save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_an_imported_unet_says_what_it_did_and_is_itself_exported_and_imported_again(options, tmp_path):
    network = randomised(UNet2DModel(**options))
    for weights in network.conv_in.parameters():  # features of little variance show the epsilon of the norms
        weights *= 1e-2
    ours = imported(saved(tmp_path / "pipeline", network), tmp_path / "run")
    x = drawn(3, *ours.facts.shape)
    assert_same(output(ours, x), network(theirs_of(x), torch.from_numpy(TIMES - 1)).sample)

    assert export_run(tmp_path / "run", None, tmp_path / "out") == 0
    again = imported(tmp_path / "out", tmp_path / "again")
    assert checksums(again.params) == checksums(ours.params)
    assert configs.differences(configs.to_json(ours.config), configs.to_json(again.config)) == {}
    exported, saved_before = (
        UNet2DModel.from_pretrained(folder / "unet").state_dict()
        for folder in (tmp_path / "out", tmp_path / "pipeline")
    )
    assert exported.keys() == saved_before.keys()


def test_classes_are_carried_over(tmp_path):
    network = randomised(UNet2DModel(num_class_embeds=5, **HALF))
    ours = imported(saved(tmp_path / "pipeline", network), tmp_path / "run")
    x, labels = drawn(3, 16, 16, 3), np.array([0, 4, 2])
    theirs = network(theirs_of(x), torch.from_numpy(TIMES - 1), torch.from_numpy(labels)).sample
    assert_same(output(ours, x, condition=Condition(labels)), theirs)
    assert ours.facts.classes == ("0", "1", "2", "3", "4") and ours.diffusion.told.null is None
    config = digits.get_config()
    config.condition.update(labels=True, null_rate=0.2)
    with_null = imported(tmp_path / "pipeline", tmp_path / "another", config)
    assert len(with_null.facts.classes) == 4 and with_null.diffusion.told.null.labels == 4
    assert with_null.config.condition.null_rate == 0.2


def test_attention_names_of_before_0_14_are_read(tmp_path):
    network = randomised(UNet2DModel(**HALF))
    folder = saved(tmp_path / "pipeline", network) / "unet"
    new = imported(tmp_path / "pipeline", tmp_path / "new")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for name, weights in network.state_dict().items():
        for today, before in names.items():
            name = name.replace(today, before)
        state[name] = weights
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    old = imported(tmp_path / "pipeline", tmp_path / "old")
    assert checksums(old.params) == checksums(new.params)


def ddim(network, scheduler, x, num_steps, *labels):
    """Their sample, as a pipeline makes it; like us they derive eps anew where they clip."""
    scheduler.set_timesteps(num_steps)
    for t in scheduler.timesteps:
        said = network(x, t, *labels).sample
        x = scheduler.step(said, t, x, eta=0, use_clipped_model_output=True).prev_sample
    return x


SCHEDULERS = {
    "linear": dict(),
    "cosine_v": dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
    "scaled_linear_x0": dict(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="sample", clip_sample=False
    ),
    "other_number_of_levels": dict(num_train_timesteps=500, beta_start=2e-4, beta_end=0.04),
    "leading": dict(timestep_spacing="leading"),
    "thresholded": dict(clip_sample=False, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e6),
    "zero_snr": dict(rescale_betas_zero_snr=True, prediction_type="v_prediction"),
}


@pytest.mark.parametrize("options", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_sample_is_theirs_before_and_after_export(options, tmp_path):
    network = randomised(UNet2DModel(**HALF))
    scheduler = DDIMScheduler(**{"timestep_spacing": "trailing"} | options)
    if scheduler.config.prediction_type == "epsilon":  # at T x0 is off by 158 times what float32 rounds of eps
        for weights in network.conv_out.parameters():
            weights *= 0.1
    saved(tmp_path / "pipeline", network, scheduler)
    imported(tmp_path / "pipeline", tmp_path / "run")
    ours = run.load(tmp_path / "run")
    x = drawn(2, 16, 16, 3)
    with jax.default_matmul_precision("highest"):
        sample = ours.sampler(num_steps=10).lead(ours.params, x)
    assert_same(sample, ddim(network, scheduler, theirs_of(x), 10))

    assert export_run(tmp_path / "run", None, tmp_path / "out") == 0
    pipeline = DDIMPipeline.from_pretrained(tmp_path / "out")
    assert_same(sample, ddim(pipeline.unet.eval(), pipeline.scheduler, theirs_of(x), 10).detach())


NATIVE = {
    "cosine": dict(),
    "sigmoid": {"schedule.name": "sigmoid"},
    "linear_shifted": {"schedule.name": "linear", "schedule.shift": 0.9, "model.unet.freq_shift": 0},
    "groups_of_ddpm": {"model.unet.channels": 128, "model.unet.norm_groups": 0},
}


@pytest.mark.parametrize("changes", NATIVE.values(), ids=NATIVE)
def test_a_run_of_ours_is_told_other_times_and_draws_the_same_sample(changes, tmp_path):
    config = digits.get_config()
    config.model.unet.update(
        channels=16, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,), norm_groups=4
    )
    config.update_from_flattened_dict({"schedule.name": "cosine", "sampler.name": "ddim"} | changes)
    facts = Facts((8, 8, 1), 1500, ())
    template = jax.eval_shape(objective.diffusion(config, facts.shape).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: drawn(*leaf.shape) * (leaf.size / leaf.shape[-1]) ** -0.5, template)
    write_run(tmp_path / "run", config, facts, params)
    export_run(tmp_path / "run", None, tmp_path / "out")
    pipeline, ours, x = DDIMPipeline.from_pretrained(tmp_path / "out"), run.load(tmp_path / "run"), drawn(2, 8, 8, 1)
    with jax.default_matmul_precision("highest"):
        sample = ours.sampler(num_steps=10).lead(ours.params, x)
    assert_same(sample, ddim(pipeline.unet.requires_grad_(False).eval(), pipeline.scheduler, theirs_of(x), 10))
