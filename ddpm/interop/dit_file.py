"""The .pt files of the paper's own DiT."""

import math
import pathlib
import re

import numpy as np

from ddpm.errors import InputError
from ddpm.interop.diffusers_dit import patches_as_features
from ddpm.interop.foreign import Foreign, Path, halves_swapped
from ddpm.interop.weight_file import Arrays

TIME, PATCH, POSITION = "t_embedder.mlp.0.weight", "x_embedder.proj.weight", "pos_embed"
TOP = {"time_1": "t_embedder.mlp.0", "time_2": "t_embedder.mlp.2", "label": "y_embedder.embedding_table"}
TOP |= {"patch": "x_embedder.proj", "modulation": "final_layer.adaLN_modulation.1", "out": "final_layer.linear"}
INSIDE = {name: f"attn.{name}" for name in ("query", "key", "value")} | {"out": "attn.proj"}
INSIDE |= {"modulation": "adaLN_modulation.1", "mlp_1": "mlp.fc1", "mlp_2": "mlp.fc2"}
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of the widths of S, B, L and XL
DIFFUSION = {  # of all that were published
    "process.name": "VP",
    "process.VP.told": "index",
    "schedule.name": "linear",
    "schedule.T": 1000,
    "schedule.shift": 1.0,
    "schedule.zero_terminal_snr": False,
    "schedule.linear.beta_1": 1e-4,
    "schedule.linear.beta_T": 0.02,
    "prediction.name": "eps",
    "sampler.name": "ancestral",
    "sampler.num_steps": 250,
    "sampler.clip": False,
}


def is_one(arrays: dict[str, np.ndarray]) -> bool:
    """Whether a state dict is of the paper's DiT, by its names."""
    return TIME in arrays and PATCH in arrays


def foreign(arrays: Arrays, file: pathlib.Path, heads: int = 0) -> Foreign:
    """The network that a state dict is.

    Args:
      heads: of its attention; 0 for those of the paper's widths.
    Raises:
      InputError: a width that the paper has not and no heads, or positions that are not its sines and cosines.

    Peebles and Xie 2023.
    """
    width, channels, p, _ = arrays.of(PATCH, 4).shape
    heads = heads or HEADS.get(width, 0)
    if not heads:
        raise InputError(
            f"{file} does not say its heads, and {width} is no width of the paper: give --trained_with '--num_heads N'."
        )
    numbers = [int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in arrays) if match]
    if not numbers:
        raise InputError(f"{file} holds no 'blocks.0': it is not whole.")
    depth, tokens = 1 + max(numbers), arrays.of(POSITION, 3).shape[1]
    side, outputs = math.isqrt(tokens), len(arrays.of("final_layer.linear.weight", 2)) // p**2
    labels = len(arrays.of("y_embedder.embedding_table.weight", 2))
    learned, arrays = outputs == 2 * channels, dict(arrays)
    if side**2 != tokens or np.abs(arrays.pop(POSITION)[0] - _positions(side, width)).max() > 1e-4:
        raise InputError(f"{file}: {POSITION!r} is not the sines and cosines of a square, which our DiT adds.")
    arrays[TIME], arrays[PATCH] = halves_swapped(arrays[TIME]), patches_as_features(arrays[PATCH])
    for name in [name for name in arrays if ".attn.qkv." in name]:
        joined = arrays.pop(name)
        if not joined.ndim or len(joined) != 3 * width:
            raise InputError(
                f"{file}: {name!r} is of shape {joined.shape}, and holds 3 x {width} queries, keys and values."
            )
        parts = np.split(joined, 3)
        arrays |= {
            name.replace("qkv", part): value for part, value in zip(("query", "key", "value"), parts, strict=True)
        }
    wide = arrays.get("blocks.0.mlp.fc1.weight")
    options = {
        "patch_size": p,
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": 4.0 if wide is None else len(wide) / width,
        "dropout": 0.0,
        "positions": "sincos",
        "freq_shift": 0,
    }
    shape = (side * p, side * p, channels if learned else outputs)
    settings = DIFFUSION | {"sampler.ancestral.variance": "learned" if learned else "beta"}
    return Foreign(
        file, "dit", options, shape, learned, arrays, name_of, labels=labels, has_null=True, settings=settings
    )


def name_of(path: Path) -> str:
    """Path of a module of our DiT -> its name in theirs."""
    top, *rest = path
    match = re.fullmatch(r"block_(\d+)", top)
    return f"blocks.{match[1]}.{INSIDE[rest[0]]}" if match else TOP[top]


def _positions(side, width):
    """[tokens, width]: of x and then of y the sines and then the cosines of 10000^(-i / (width / 4)) times it."""
    w = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    y, x = np.mgrid[:side, :side].reshape(2, -1, 1)
    return np.concatenate([np.sin(x * w), np.cos(x * w), np.sin(y * w), np.cos(y * w)], axis=1)
