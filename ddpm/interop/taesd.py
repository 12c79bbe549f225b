"""Published files of the TAESD family as options and parameters of our Taesd."""

import hashlib
import pathlib
import re
from typing import Any

import jax

from ddpm.errors import InputError
from ddpm.interop import weight_file

REMEDY = (
    "A TAESD is a folder with one file whose name ends in encoder.safetensors and one in decoder.safetensors (or .pth), or "
    "one .safetensors file of both, such as those of madebyollin/taesd, taesd3, taef1 and taef2."
)
LAYOUT = {1: (0,), 4: (2, 3, 1, 0)}  # of ours in a vector and a convolution [out, in, height, width]


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of an autoencoder: encoder, then decoder, or one of both; none if there are none."""
    if path.is_file():
        return [path]
    for end in (".safetensors", ".pth"):
        sides = [sorted(path.glob(f"*{side}{end}")) for side in ("encoder", "decoder")]
        if all(sides):
            return [found[0] for found in sides]
    return sorted(path.glob("*.safetensors"))[:1]


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Options and parameters of a Taesd, and 16 hexadecimal digits of its files.

    Raises:
      InputError: no such files, broken ones, or others than of a TAESD.
    """
    found, sha, params = files(path), hashlib.sha256(), {"encoder": {}, "decoder": {}}
    if not found:
        raise InputError(f"no autoencoder in {str(path)!r}. {REMEDY}")
    for file in found:
        sha.update(file.read_bytes())
        for name, array in weight_file.read(file).items():
            side, layer, leaf = _place(name, "encoder" if file == found[0] else "decoder", file)
            kind = "bias" if leaf[-1] == "bias" else "kernel" if array.ndim == 4 else "scale"
            inner = params[side].setdefault(layer, {})
            for part in ["_".join(leaf[:-1])] if leaf[:-1] else []:
                inner = inner.setdefault(part, {})
            inner[kind] = array.transpose(LAYOUT.get(array.ndim, range(array.ndim)))
    try:
        first, last = params["encoder"]["0"]["kernel"], params["encoder"]["14"]["kernel"]
        pooled = "pool_0" in params["encoder"]["13"]
    except KeyError as error:
        raise InputError(f"{found[0]} is of no TAESD: it holds no layer {error}. {REMEDY}") from error
    options = {"latent_channels": last.shape[-1], "channels": first.shape[-1], "pooled": pooled}
    return options, params, sha.hexdigest()[:16]


def check(path: pathlib.Path, params: Any, expected: Any) -> None:
    """Compares the arrays that were read with those of the network.

    Raises:
      InputError: one is missing, another is there, or a shape differs.
    """
    wanted, read = (_by_name(tree) for tree in (expected, params))
    for name in sorted(wanted.keys() | read.keys()):
        if wanted.get(name) != read.get(name):
            there, needed = read.get(name, "nothing"), wanted.get(name, "nothing")
            raise InputError(f"{path} is of no TAESD: it holds {there} at {name}, and {needed} is needed. {REMEDY}")


def _by_name(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def _place(name: str, side: str, file: pathlib.Path) -> tuple[str, str, list[str]]:
    """Side, layer and what it is of: '3.conv.0.weight', or with sides named 'decoder.layers.2.conv.0.weight'."""
    match = re.fullmatch(r"(?:(encoder|decoder)\.layers\.)?(\d+)\.(.+)", name)
    if match is None:
        raise InputError(f"{file} is of no TAESD: it holds {name!r}. {REMEDY}")
    layer, leaf = int(match[2]), match[3].split(".")
    if match[1] == "decoder":
        layer += 1  # diffusers numbers without the bending of latents
    return match[1] or side, str(layer), leaf
