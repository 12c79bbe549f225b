"""Autoencoders of latent diffusion in folders of diffusers: AutoencoderKL, such as Stable Diffusion's, and VQModel."""

import hashlib
import json
import math
import pathlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpm.errors import InputError
from ddpm.interop import said, weight_file
from ddpm.interop.foreign import Foreign, Path, params_of
from ddpm.models.autoencoders.encoder_decoder import Convolutional
from ddpm.models.autoencoders.kl import KL
from ddpm.models.autoencoders.vq import VQ

CONFIG = "config.json"
CLASSES = {"AutoencoderKL": KL, "VQModel": VQ}
KINDS = {
    "_class_name": said.NAME,
    **dict.fromkeys(
        ("in_channels", "out_channels", "latent_channels", "layers_per_block", "norm_num_groups"), said.COUNT
    ),
    "block_out_channels": said.COUNTS,
    "down_block_types": said.NAMES,
    "up_block_types": said.NAMES,
    "num_vq_embeddings": said.integer(2),
    "vq_embed_dim": said.either(said.COUNT, said.NONE),
    "use_quant_conv": said.BOOL,
    "use_post_quant_conv": said.BOOL,
    "scaling_factor": said.POSITIVE,
    "shift_factor": said.either(said.NUMBER, said.NONE),
}
# 1 of VQModels that say none, whose authors (Rombach et al. 2022) scaled none: 0.18215, which diffusers takes for them
# since 0.22, spoils its own example of CompVis/ldm-celebahq-256 (its issue 6725).
FACTORS = {"AutoencoderKL": 0.18215, "VQModel": 1.0}
# What these may be, where they are said: the rest is not built here.
ALLOWED = {
    "act_fn": ("silu", "swish"),
    "mid_block_add_attention": (True,),
    "norm_type": ("group",),
    "latents_mean": (None,),
    "latents_std": (None,),
}
INNER = {"norm_1": "norm1", "conv_1": "conv1", "norm_2": "norm2", "conv_2": "conv2", "skip": "conv_shortcut"}
ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OTHERS = {"quant": "quant_conv", "post_quant": "post_quant_conv", "out": "decoder.conv_out"}


class Published(NamedTuple):
    """An autoencoder that others have trained.

    module: the network; its `latents` and `decode` are what `encode` and `decode` of diffusers are.
    params: its parameters, NumPy arrays.
    scaling_factor, shift_factor: (latents - shift_factor) scaling_factor is what their diffusion models see.
    sha256: 16 hexadecimal digits, of its weights.
    """

    module: Convolutional
    params: Any
    scaling_factor: float
    shift_factor: float
    sha256: str


def is_one(path: str | pathlib.Path) -> bool:
    """Whether a folder has a config.json that says it holds one of these autoencoders."""
    file = pathlib.Path(path).expanduser() / CONFIG
    return file.is_file() and any(f'"{name}"' in file.read_text("utf-8", "replace") for name in CLASSES)


def read(path: str | pathlib.Path) -> Published:
    """The autoencoder in a folder with config.json and diffusion_pytorch_model.safetensors.

    Raises:
      InputError: no such files, a broken one, or another network than an AutoencoderKL or a VQModel.

    Rombach et al. 2022; Esser et al. 2021 (VQGAN).
    """
    folder = pathlib.Path(path).expanduser()
    file = folder / CONFIG
    if not file.is_file():
        raise InputError(
            f"no autoencoder in {str(path)!r}: it holds no {CONFIG}. Give a folder that diffusers wrote, such as vae of "
            "Stable Diffusion."
        )
    try:
        config = dict(json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({' '.join(str(error).split())}). Copy it again.") from error
    module, shape = _module(config, file)
    weights = weight_file.in_folder(folder)
    arrays = weight_file.read(weights)
    for old, new in OLD_ATTENTION.items():
        arrays = {name.replace(f".attentions.0.{old}.", f".attentions.0.{new}."): a for name, a in arrays.items()}
    levels = len(module.channel_mult)
    foreign = Foreign(weights, "", {}, shape, False, arrays, lambda path: their_name(path, levels))
    template = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))["params"]
    params = params_of(foreign, template)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    factor = float(config.get("scaling_factor", FACTORS[config["_class_name"]]))
    return Published(module, params, factor, float(config.get("shift_factor") or 0), sha256)


def their_name(path: Path, levels: int) -> str:
    """The name in PyTorch of a module of ours, or of the array `codebook`."""
    if path == ("codebook",):
        return "quantize.embedding.weight"
    if path[0] in OTHERS:
        return OTHERS[path[0]]
    side, block, *inner = path
    numbers = re.match(r"\d+", block)
    level = int(numbers[0]) if numbers else 0
    if block == "mid_attention":
        return f"{side}.mid_block.attentions.0.{ATTENTION[inner[0]]}"
    if block.startswith("mid_"):
        return f"{side}.mid_block.resnets.{block[4:]}.{INNER[inner[0]]}"
    if block.endswith("_downsample"):  # theirs belongs to the level it leads away from
        return f"{side}.down_blocks.{level - 1}.downsamplers.0.conv"
    if block.endswith("_upsample"):
        return f"{side}.up_blocks.{levels - 1 - level}.upsamplers.0.conv"
    if numbers:
        place = f"down_blocks.{level}" if side == "encoder" else f"up_blocks.{levels - 1 - level}"
        return f"{side}.{place}.resnets.{block.partition('_')[2]}.{INNER[inner[0]]}"
    return f"{side}.{'conv_norm_out' if block == 'norm_out' else block}"


def _module(config: dict, file: pathlib.Path) -> tuple[Convolutional, tuple[int, int, int]]:
    """The network of config.json, and the shape of the smallest image it takes."""

    def refused(what, remedy):
        return InputError(f"{file} says {what}: {remedy}")

    said.check(config, KINDS, file)
    kind = config.get("_class_name")
    if kind not in CLASSES:
        raise refused(f"_class_name = {kind!r}", f"only {' and '.join(CLASSES)} are read.")
    for key, allowed in ALLOWED.items():
        if key in config and config[key] not in allowed:
            raise refused(f"{key} = {config[key]!r}", f"only {' or '.join(map(repr, allowed))} is read.")
    latent = config.get("latent_channels", {"AutoencoderKL": 4, "VQModel": 3}[kind])
    if config.get("vq_embed_dim") not in (None, latent):
        raise refused(f"vq_embed_dim = {config['vq_embed_dim']}", f"only latent_channels = {latent} is read.")
    channels = [config.get(key, 3) for key in ("in_channels", "out_channels")]
    if channels[0] != channels[1]:
        raise refused(f"in_channels = {channels[0]}", f"only out_channels = {channels[1]} is read.")
    ends = [config.get(key, True) for key in ("use_quant_conv", "use_post_quant_conv")]
    if ends[0] != ends[1]:
        raise refused(f"use_quant_conv = {ends[0]}", "only with as much of use_post_quant_conv is it read.")
    widths = config.get("block_out_channels", [64])
    for key, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if list(config.get(key, [block])) != [block] * len(widths):
            raise refused(f"{key} = {config.get(key)}", f"only {block} is read, for each of {list(widths)} channels.")
    unit = math.gcd(*widths)
    options = dict(
        image_channels=channels[0],
        channels=unit,
        channel_mult=tuple(width // unit for width in widths),
        num_res_blocks=config.get("layers_per_block", 1),
        latent_channels=latent,
        norm_groups=config.get("norm_num_groups", 32),
        quant_conv=ends[0],
    )
    if kind == "VQModel":
        options["codes"] = config.get("num_vq_embeddings", 256)
    side = 2 ** (len(widths) - 1)
    return CLASSES[kind](**options), (side, side, channels[0])
