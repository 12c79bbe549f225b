"""Runs with random parameters to export, folders of diffusers to import, and what is said against them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from ddpm import objective
from ddpm.data.images import Facts
from ddpm.errors import InputError
from ddpm.imports import write_run
from ddpm.interop import autoencoder_kl, weight_file
from ddpm.interop.foreign import arrays_of
from ddpm.models.autoencoders.kl import KL
from ddpm.models.autoencoders.vq import VQ
from experiments import digits

UNET = dict(channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,), norm_groups=4, dropout=0.0)


def native(workdir, change=lambda config: None, classes=0, shape=(8, 8, 1), scale=None):
    """A run with random parameters."""
    config = digits.get_config()
    config.model.unet.update(UNET)
    change(config)
    facts = Facts(shape, 1500, tuple(map(str, range(classes))), scale)
    template = jax.eval_shape(objective.diffusion(config, facts.shape, classes).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.1).astype(np.float32), template)
    write_run(workdir, config, facts, params)
    return config


def autoencoder(folder, kind, latent=3, **more):
    """A folder of diffusers' with a tiny autoencoder of random weights; `more` of its config.json."""
    made = {"AutoencoderKL": KL, "VQModel": VQ}[kind](3, 8, (1, 2), 1, latent, norm_groups=4)
    template = jax.eval_shape(lambda: made.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3))))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.1).astype(np.float32), template)
    folder.mkdir(parents=True)
    save_file(
        arrays_of(params, lambda path: autoencoder_kl.their_name(path, 2)), folder / f"{weight_file.NAME}.safetensors"
    )
    config = {
        "_class_name": kind,
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "latent_channels": latent,
        "norm_num_groups": 4,
        "num_vq_embeddings": 1024,
    }
    (folder / "config.json").write_text(json.dumps(config | more))


def mistake(function, *arguments):
    with pytest.raises(InputError) as told:
        function(*arguments)
    assert "\n" not in str(told.value)
    return str(told.value)
