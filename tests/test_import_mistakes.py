"""Configurations with values of other kinds, and weights that are no numbers: one line that names what is wrong."""

import json

import numpy as np
import pytest
from runs_of_others import autoencoder, mistake
from safetensors.numpy import load_file, save_file

from ddpm.interop import autoencoder_kl, diffusers_folder, weight_file

UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attn_norm_num_groups": 32,
}
DIT = {"_class_name": "DiTTransformer2DModel"}
NETWORKS = [
    (UNET, "_class_name", ["x"], "must be a name, or null."),
    (UNET, "sample_size", "big", "must be an integer, at least 1, or a list of two of them, or null."),
    (UNET, "sample_size", [1, 2, 3], "must be an integer, at least 1, or a list of two of them, or null."),
    (UNET, "block_out_channels", "abc", "must be a list of integers, each at least 1."),
    (UNET, "block_out_channels", [], "must be a list of integers, each at least 1."),
    (UNET, "block_out_channels", [0, 0], "must be a list of integers, each at least 1."),
    (UNET, "in_channels", None, "must be an integer, at least 1."),
    (UNET, "norm_num_groups", None, "must be an integer, at least 1."),
    (UNET, "dropout", None, "must be a number from 0, below 1."),
    (UNET, "dropout", float("nan"), "must be a number from 0, below 1."),
    (UNET, "num_class_embeds", "x", "must be an integer, at least 1, or null."),
    (UNET, "layers_per_block", "2", "must be an integer, at least 1, or a list of integers, each at least 1."),
    (UNET, "layers_per_block", True, "must be an integer, at least 1, or a list of integers, each at least 1."),
    (UNET, "resnet_time_scale_shift", "ada_group", "must be 'default' or 'scale_shift'."),
    (UNET, "downsample_type", "fir", "must be 'conv' or 'resnet'."),
    (UNET, "down_block_types", 3, "must be a list of names."),
    (UNET, "attention_head_dim", [4, 8], "is no network that our U-Net can be: its heads have one width."),
    (UNET | {"_class_name": "UNet2DConditionModel"}, "cross_attention_dim", None, "must be an integer, at least 1, or a"),
    (DIT, "sample_size", [8, 8], "must be an integer, at least 1."),
    (DIT, "num_embeds_ada_norm", None, "must be an integer, at least 1."),
    (DIT, "dropout", "x", "must be a number from 0, below 1."),
]  # fmt: skip
SCHEDULERS = [
    ("_class_name", ["x"], "must be a name."),
    ("num_train_timesteps", "1000", "must be an integer, at least 1."),
    ("beta_start", "x", "must be a number above 0 and below 1."),
    ("beta_end", None, "must be a number above 0 and below 1."),
    ("prediction_type", ["v"], "must be a name."),
    ("beta_schedule", None, "must be a name."),
    ("variance_type", {}, "must be a name, or null."),
    ("clip_sample", "yes", "must be true or false."),
    ("clip_sample_range", 2.0, "has no counterpart here. Leave the folder of the scheduler away and give --config, "),
    ("thresholding", True, "has no counterpart here. Leave the folder of the scheduler away and give --config, "),
]
AUTOENCODERS = [
    ("_class_name", ["VQModel"], "must be a name."),
    ("latent_channels", None, "must be an integer, at least 1."),
    ("block_out_channels", [0, 0], "must be a list of integers, each at least 1."),
    ("layers_per_block", "2", "must be an integer, at least 1."),
    ("norm_num_groups", None, "must be an integer, at least 1."),
    ("down_block_types", None, "must be a list of names."),
    ("num_vq_embeddings", 1.5, "must be an integer, at least 2."),
    ("scaling_factor", 0, "must be a number above 0."),
    ("use_quant_conv", "no", "must be true or false."),
]


def names(cases):
    return [f"{case[-3]}={case[-2]}" for case in cases]


def write(folder, config, scheduler):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"} | scheduler))
    save_file({"a": np.zeros(2, np.float32)}, folder / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.mark.parametrize(("config", "key", "value", "wrong"), NETWORKS, ids=names(NETWORKS))
def test_a_key_of_a_network_is_of_its_kind(tmp_path, config, key, value, wrong):
    folder = write(tmp_path / "unet", config | {key: value}, {})
    told = mistake(diffusers_folder.read, folder)
    assert told.startswith(f"{folder}/config.json: {key} = {value!r} {wrong}")


@pytest.mark.parametrize(("key", "value", "wrong"), SCHEDULERS, ids=names(SCHEDULERS))
def test_a_key_of_a_scheduler_is_of_its_kind(tmp_path, key, value, wrong):
    folder = write(tmp_path / "unet", UNET, {key: value})
    told = mistake(diffusers_folder.read, folder)
    assert told.startswith(f"{folder}/scheduler_config.json: {key} = {value!r} {wrong}")


def test_a_range_of_clipping_is_of_no_matter_where_nothing_is_clipped(tmp_path):
    folder = write(tmp_path / "unet", UNET, {"clip_sample": False, "clip_sample_range": 2.0, "thresholding": False})
    assert diffusers_folder.read(folder).settings["sampler.clip"] is False


def test_blocks_are_as_many_as_their_channels(tmp_path):
    folder = write(tmp_path / "unet", UNET | {"block_out_channels": [8, 16, 32]}, {})
    assert "both ways have one for each of 3 block_out_channels." in mistake(diffusers_folder.read, folder)


@pytest.mark.parametrize(("key", "value", "wrong"), AUTOENCODERS, ids=names(AUTOENCODERS))
def test_a_key_of_an_autoencoder_is_of_its_kind(tmp_path, key, value, wrong):
    autoencoder(tmp_path / "vae", "VQModel", **{key: value})
    told = mistake(autoencoder_kl.read, tmp_path / "vae")
    assert told == f"{tmp_path}/vae/config.json: {key} = {value!r} {wrong}"


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    autoencoder(tmp_path / "vae", "VQModel")
    weights = tmp_path / "vae" / f"{weight_file.NAME}.safetensors"
    arrays = load_file(weights)
    arrays["encoder.conv_in.bias"][3] = np.nan
    save_file(arrays, weights)
    told = mistake(autoencoder_kl.read, tmp_path / "vae")
    assert told == f"{weights}: 'encoder.conv_in.bias' holds numbers that are not finite, such as NaN. Copy it again."
