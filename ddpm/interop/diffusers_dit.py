"""DiTTransformer2DModel of diffusers: its configuration and names, and ours."""

import pathlib
import re
from typing import Any

import numpy as np

from ddpm.errors import InputError
from ddpm.interop import said
from ddpm.interop.foreign import Foreign, Path, halves_swapped

DEFAULTS = dict(
    num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=None, num_layers=28, dropout=0.0,
    attention_bias=True, sample_size=32, patch_size=2, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
    norm_type="ada_norm_zero", norm_elementwise_affine=False, norm_eps=1e-5,
)  # fmt: skip
# norm_eps: 1e-6 in the paper's code and here; 1e-5, which diffusers writes, is of one norm of three there, and no different.
ONLY = dict(attention_bias=(True,), activation_fn=("gelu-approximate",), norm_type=("ada_norm_zero",))
ONLY |= dict(norm_elementwise_affine=(False,), norm_eps=(1e-5, 1e-6))
FREE = dict.fromkeys(
    ("num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size", "patch_size"), said.COUNT
)
FREE |= dict(out_channels=said.either(said.COUNT, said.NONE), num_embeds_ada_norm=said.COUNT, dropout=said.RATE)
BLOCKS, EMBEDDING, PATCH = "transformer_blocks", "norm1.emb", "pos_embed.proj.weight"
FIRST = f"{BLOCKS}.0.{EMBEDDING}"
TIME = f"{FIRST}.timestep_embedder.linear_1.weight"
INSIDE = {"query": "attn1.to_q", "key": "attn1.to_k", "value": "attn1.to_v", "out": "attn1.to_out.0"}
INSIDE |= {"modulation": "norm1.linear", "mlp_1": "ff.net.0.proj", "mlp_2": "ff.net.2"}
TOP = {
    "time_1": f"{FIRST}.timestep_embedder.linear_1",
    "time_2": f"{FIRST}.timestep_embedder.linear_2",
    "label": f"{FIRST}.class_embedder.embedding_table",
    "patch": "pos_embed.proj",
    "modulation": "proj_out_1",
    "out": "proj_out_2",
}


def name_of(path: Path) -> str:
    """Path of a module of our DiT -> its name in theirs."""
    top, *rest = path
    if match := re.fullmatch(r"block_(\d+)", top):
        return ".".join([f"{BLOCKS}.{match[1]}", INSIDE[rest[0]]])
    return TOP[top]


def foreign(config: dict[str, Any], arrays: dict[str, np.ndarray], file: pathlib.Path) -> Foreign:
    """The network that a config.json and its weights are.

    Raises:
      InputError: one that our DiT cannot be.
    """
    source = file.parent / "config.json"
    config = DEFAULTS | {key: value for key, value in config.items() if key in DEFAULTS}
    said.check(config, FREE, source)
    for key, known in ONLY.items():
        if config[key] not in known:
            raise InputError(
                f"{source}: {key} = {config[key]!r} is no network that our DiT can be: it knows {known[0]!r}."
            )
    width, p = config["num_attention_heads"] * config["attention_head_dim"], config["patch_size"]
    arrays = dict(arrays)
    for name in [name for name in arrays if f".{EMBEDDING}." in name and not name.startswith(FIRST)]:
        if not np.array_equal(arrays[name], arrays.get(re.sub(r"\.\d+\.", ".0.", name, count=1))):
            raise InputError(f"{file}: {name!r} differs from that of the first block; our DiT has one for all blocks.")
        del arrays[name]
    arrays.pop("pos_embed.pos_embed", None)  # sines and cosines of the places, of older versions
    if TIME in arrays and PATCH in arrays:
        arrays[TIME] = halves_swapped(arrays[TIME])
        arrays[PATCH] = patches_as_features(arrays[PATCH])
    channels, outputs, size = (
        config["in_channels"],
        config["out_channels"] or config["in_channels"],
        config["sample_size"],
    )
    learned = outputs == 2 * channels
    wide = arrays.get(f"{BLOCKS}.0.{INSIDE['mlp_1']}.weight")
    options = {
        "patch_size": p,
        "width": width,
        "depth": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": 4.0 if wide is None else len(wide) / width,
        "dropout": float(config["dropout"]),
        "positions": "sincos",
        "freq_shift": 1,
    }
    shape = (size, size, channels if learned else outputs)
    labels = config["num_embeds_ada_norm"] + 1
    return Foreign(file, "dit", options, shape, learned, arrays, name_of, labels=labels, has_null=True)


def config_of(options: dict[str, Any], shape: tuple[int, int, int], outputs: int, labels: int, has_null: bool) -> dict:
    """config.json of our DiT with these options, for images of a shape; `labels` and `has_null` as in Foreign.

    Raises:
      InputError: diffusers has no such network.
    """
    for key, value in (("positions", "sincos"), ("freq_shift", 1), ("mlp_ratio", 4)):
        if options[key] != value:
            raise InputError(f"diffusers has no DiT with model.dit.{key} = {options[key]!r}, only with {value!r}.")
    if shape[0] != shape[1] or not has_null:
        raise InputError(
            "diffusers has no DiT but of square images, told classes with condition.labels and condition.null_rate."
        )
    return {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": options["num_heads"],
        "attention_head_dim": options["width"] // options["num_heads"],
        "in_channels": shape[2],
        "out_channels": outputs,
        "num_layers": options["depth"],
        "dropout": options["dropout"],
        "sample_size": shape[0],
        "patch_size": options["patch_size"],
        "num_embeds_ada_norm": labels - 1,
        "norm_eps": 1e-6,
    }


def as_theirs(arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by their names, with the embedding of times and classes in each block, and patches by a convolution."""
    p, patch = options["patch_size"], arrays[PATCH]
    arrays = arrays | {PATCH: patch.reshape(len(patch), p, p, -1).transpose(0, 3, 1, 2)}
    for name in [name for name in arrays if name.startswith(FIRST)]:
        for i in range(1, options["depth"]):
            arrays[name.replace(FIRST, f"{BLOCKS}.{i}.{EMBEDDING}")] = arrays[name]
    return arrays


def patches_as_features(kernel: np.ndarray) -> np.ndarray:
    """Conv2d [out, in, rows, columns] of patches as Linear [out, rows * columns * in]."""
    return kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
