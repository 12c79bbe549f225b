"""The .pt files of improved and guided diffusion: U-Nets and classifiers of noised images."""

import math
import pathlib
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ddpm.errors import InputError, unknown_name
from ddpm.interop.foreign import Foreign, Path, halves_swapped
from ddpm.interop.weight_file import Arrays

TIME, FIRST, POSITION = "time_embed.0.weight", "input_blocks.0.0.weight", "out.2.positional_embedding"
TOP = {"time_1": "time_embed.0", "time_2": "time_embed.2", "label": "label_emb", "conv_in": "input_blocks.0.0"}
TOP |= {"norm_out": "out.0", "conv_out": "out.2", "pool": "out.2"}
TOP |= {"mid_0": "middle_block.0", "mid_attention": "middle_block.1", "mid_1": "middle_block.2"}
INSIDE = {"norm_1": "in_layers.0", "conv_1": "in_layers.2", "time": "emb_layers.1", "skip": "skip_connection"}
INSIDE |= {"norm_2": "out_layers.0", "conv_2": "out_layers.3"}
ATTENTION, POOL = {"out": "proj_out"}, {"out": "c_proj", "position": "positional_embedding"}
OF_SHAPES = ("num_channels", "num_res_blocks", "resblock_updown", "use_scale_shift_norm", "class_cond", "num_heads")
FLAGS = (  # of their scripts, so that a whole command line can be given
    *OF_SHAPES, "image_size", "num_head_channels", "num_heads_upsample", "use_new_attention_order", "noise_schedule",
    "diffusion_steps", "rescale_timesteps", "learn_sigma", "sigma_small", "predict_xstart", "rescale_learned_sigmas", "dropout",
    "use_kl", "channel_mult", "attention_resolutions", "use_checkpoint", "use_fp16", "timestep_respacing", "fp16_scale_growth",
    "classifier_use_fp16", "classifier_width", "classifier_depth", "classifier_attention_resolutions",
    "classifier_use_scale_shift_norm", "classifier_resblock_updown", "classifier_pool", "classifier_num_head_channels",
    "classifier_scale", "classifier_path", "data_dir", "val_data_dir", "noised", "iterations", "schedule_sampler", "lr",
    "weight_decay", "lr_anneal_steps", "anneal_lr", "batch_size", "microbatch", "ema_rate", "log_interval", "eval_interval",
    "save_interval", "resume_checkpoint", "model_path", "num_samples", "use_ddim", "clip_denoised",
)  # fmt: skip
NEEDED = {  # what no shape says, and their defaults
    "image_size": "",
    "num_heads": " or --num_head_channels (improved diffusion: --num_heads 4)",
    "use_new_attention_order": " (False where their flags do not say it)",
    "noise_schedule": "",
    "diffusion_steps": "",
    "rescale_timesteps": " (improved diffusion: True; guided: False)",
}


def is_one(arrays: dict[str, np.ndarray]) -> bool:
    """Whether a state dict is of one of their networks, by its names."""
    return TIME in arrays and FIRST in arrays


def foreign(arrays: Arrays, file: pathlib.Path, trained_with: str, has_noise: bool) -> Foreign:
    """The network that a state dict is.

    Args:
      trained_with: flags that their authors trained with, such as '--image_size 64 --num_heads 4'.
      has_noise: somebody else says the process, so these need not.
    Raises:
      InputError: they do not say what is needed (image_size, heads and their order, noise), or other than the shapes say.

    Nichol and Dhariwal 2021, appendix A; Dhariwal and Nichol 2021, section 3 and 4.
    """
    said = said_by(trained_with, FLAGS)
    classifies = not any(name.startswith("output_blocks.") for name in arrays)
    if classifies and POSITION not in arrays:
        raise InputError(f"{file} is of a classifier that pools otherwise than by attention: ours has no other pool.")
    if classifies:  # theirs have no flags for these, and what is said beside them is of the U-Net
        heads = {
            "num_head_channels": said.get("classifier_num_head_channels", "64"),
            "use_new_attention_order": "False",
        }
        said = {name: value for name, value in said.items() if name not in OF_SHAPES} | heads
    T = integer(said, "diffusion_steps", 0)
    each, heads = integer(said, "num_head_channels", -1), integer(said, "num_heads", 0)
    attends = any(name.endswith("qkv.weight") for name in arrays)
    missing = {name for name in ("image_size",) if name not in said}
    missing |= {name for name in ("noise_schedule", "diffusion_steps") if name not in said and not has_noise}
    missing |= {"num_heads"} if attends and each <= 0 and heads <= 0 else set()
    missing |= {"use_new_attention_order"} if heads != 1 and "use_new_attention_order" not in said else set()
    missing |= {"rescale_timesteps"} if T not in (0, 1000) and "rescale_timesteps" not in said else set()
    if missing:
        raise InputError(
            f"{file} does not say all of its network: give --trained_with the flags it was trained with, here "
            + "; ".join(f"--{name}{more}" for name, more in NEEDED.items() if name in missing)
            + "."
        )
    if integer(said, "num_heads_upsample", -1) not in (-1, heads):
        raise InputError("--num_heads_upsample other than --num_heads is no network that our U-Net can be.")
    size, images = integer(said, "image_size", 0), arrays.of(FIRST, 4).shape[1]
    if size < 1:
        raise InputError(f"--trained_with: --image_size {size} must be at least 1.")
    count = len({match[1] for match in (re.match(r"input_blocks\.(\d+)\.", name) for name in arrays) if match})
    blocks = _blocks(arrays, size, count)
    levels = count // (blocks + 1)
    widths = [_width(arrays, file, 1 + level * (blocks + 1)) for level in range(levels)]
    width, waves = len(arrays[FIRST]), arrays.of(TIME, 2).shape[1]
    if any(value % width for value in widths):
        raise InputError(
            f"{file}: its levels have {widths} features, which are no multiples of {width}, as in our U-Net."
        )
    where = [level for level in range(levels) if f"input_blocks.{1 + level * (blocks + 1)}.1.qkv.weight" in arrays]
    first = arrays.of("input_blocks.1.0.emb_layers.1.weight", 2)
    options = {
        "channels": width,
        "channel_mult": tuple(value // width for value in widths),
        "num_res_blocks": blocks,
        "attention_resolutions": tuple(size // 2**level for level in where),
        "num_heads": heads if each <= 0 else 1,
        "head_channels": max(each, 0),
        "dropout": float(number(said, "dropout", 0)),
        "scale_shift": len(first) == 2 * widths[0],
        "norm_groups": 32,
        "norm_eps": 1e-5,
        "downsample_padding": 1,
        "resblock_updown": levels > 1 and not any(".op." in name for name in arrays),
        "freq_shift": 0,
    }
    found = {"num_channels": waves, "num_res_blocks": blocks, "resblock_updown": options["resblock_updown"]}
    found |= {"use_scale_shift_norm": options["scale_shift"], "class_cond": "label_emb.weight" in arrays}
    outputs = len(arrays.of(POSITION, 2) if classifies else arrays.of("out.2.weight", 4))
    if not classifies and outputs not in (images, 2 * images):
        raise InputError(f"{file}: 'out.2.weight' says {outputs} channels, of images of {images}: it is not whole.")
    found |= {} if classifies else {"learn_sigma": outputs == 2 * images}
    for name, value in found.items():
        if name in said and said[name].lower() not in (str(value).lower(), str(int(value))):
            raise InputError(
                f"--trained_with: --{name} {said[name]}, but in {file} it is {value}: these flags are of another."
            )
    legacy = said.get("use_new_attention_order", "False") in ("False", "false", "0")
    split = _split(arrays, (lambda wide: wide // each) if each > 0 else lambda wide: max(heads, 1), legacy)
    split[TIME] = halves_swapped(split[TIME])
    names = _names(levels, blocks, where)
    if classifies:
        split[POSITION] = split[POSITION].T
        classes, options = len(arrays.of("out.2.c_proj.weight", 3)), options | {"as_published": True}
        made = Foreign(file, "noisy_classifier", options, (size, size, images), False, split, names, labels=classes)
    else:
        options |= {"patch": 1, "attention": "simple", "time": "norm", "fourier": ()}
        options["time_channels"] = 0 if waves == width else waves
        labels = len(arrays.of("label_emb.weight", 2)) if "label_emb.weight" in arrays else 0
        learned = outputs == 2 * images
        shape = (size, size, images if learned else outputs)
        made = Foreign(file, "unet", options, shape, learned, split, names, labels=labels)
    return made._replace(settings=_settings(said, T) if T and "noise_schedule" in said else {})


def said_by(text: str, known: Sequence[str]) -> dict[str, str]:
    """'--a 1 --b=2' as a dictionary.

    Raises:
      InputError: it is not so, or a flag is not known.
    """
    try:
        words = [part for word in shlex.split(text) for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    except ValueError:  # a quotation that does not end
        words = [text]
    if len(words) % 2 or not all(name[:2] == "--" for name in words[::2]):
        raise InputError(f"--trained_with {text!r} is not of the form '--image_size 64 --num_heads 4'.")
    said = {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True)}
    for name in said:
        if name not in known:
            raise unknown_name("flag in --trained_with", name, known)
    return said


def integer(said: dict[str, str], name: str, default: int) -> int:
    """One of them as a whole number.

    Raises:
      InputError: it is none.
    """
    value = number(said, name, default)
    if value != int(value):
        raise InputError(f"--trained_with: --{name} {said[name]} is no whole number.")
    return int(value)


def number(said: dict[str, str], name: str, default: float | int) -> float:
    """One of them as a number.

    Raises:
      InputError: it is none.
    """
    try:
        value = float(said.get(name, default))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--trained_with: --{name} {said[name]} is no number.")
    return value


def _settings(said: dict[str, str], T: int) -> dict[str, Any]:
    """How they train and sample with these flags, by dotted keys of a configuration."""
    schedule, true = said.get("noise_schedule"), ("True", "true", "1")
    if schedule not in ("linear", "cosine"):
        raise InputError(f"--trained_with: --noise_schedule {schedule} is none of theirs, which are linear and cosine.")
    betas = {"beta_1": 1e-4, "beta_T": 0.02} if schedule == "linear" else {"s": 0.008, "beta_max": 0.999}
    return {
        "process.name": "VP",
        "process.VP.told": "scaled_index" if T != 1000 and said["rescale_timesteps"] in true else "index",
        "schedule.name": schedule,
        "schedule.T": T,
        "schedule.shift": 1.0,
        "schedule.zero_terminal_snr": False,
        **{f"schedule.{schedule}.{name}": value for name, value in betas.items()},
        "prediction.name": "x0" if said.get("predict_xstart") in true else "eps",
        "sampler.name": "ancestral",
        "sampler.num_steps": T,
        "sampler.clip": True,
        "sampler.ancestral.variance": "posterior" if said.get("sigma_small") in true else "beta",
    }


def _blocks(arrays, size, count):
    """Residual blocks a level, of so many input_blocks: their ends are where an image is halved or doubled."""
    halving = [int(name.split(".")[1]) for name in arrays if re.match(r"input_blocks\.\d+\.0\.op\.weight", name)]
    if halving:
        return min(halving) - 1
    doubling = [int(name.split(".")[1]) for name in arrays if re.match(r"output_blocks\.\d+\.[12]\.in_layers\.0", name)]
    if doubling:
        return min(doubling)
    if POSITION not in arrays:
        return count - 1
    side = math.isqrt(arrays[POSITION].shape[1] - 1)
    return count // (1 + int(math.log2(max(size // side, 1)))) - 1


def _width(arrays, file, k):
    name = f"input_blocks.{k}.0.out_layers.3.weight"
    if name not in arrays:
        raise InputError(f"{file} holds no {name!r}: it is not whole, or --image_size is not that of its network.")
    return len(arrays[name])


def _split(arrays, heads_of, legacy):
    """Arrays with q, k and v apart: in one they are q, k, v of each head in turn (`legacy`), or all q, all k, all v."""
    split = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(.*\.)qkv(_proj)?\.(weight|bias)", name)
        if not match:
            split[name] = array
            continue
        if not array.ndim or len(array) % 3:
            raise InputError(
                f"{name!r} is of shape {array.shape}, and holds queries, keys and values: it is not whole."
            )
        wide, rest = len(array) // 3, array.shape[1:]
        if legacy and not match[2]:
            heads = heads_of(wide)
            if not heads or wide % heads:
                raise InputError(f"--trained_with: the heads do not divide the {wide} features of {name!r}.")
            parts = np.swapaxes(array.reshape(heads, 3, wide // heads, *rest), 0, 1).reshape(3, wide, *rest)
        else:
            parts = array.reshape(3, wide, *rest)
        for part, value in zip(("query", "key", "value"), parts, strict=True):
            split[f"{match[1]}{part}.{match[3]}"] = value
    return split


def _names(levels: int, blocks: int, attending: list[int]) -> Callable[[Path], str]:
    def name_of(path: Path) -> str:
        top, *rest = path
        place, resampled = TOP.get(top, top), {}
        if match := re.fullmatch(r"(down|up)_(\d+)_(\d+|downsample|upsample)(_attention)?", top):
            way, level, which, attends = match[1], int(match[2]), match[3], match[4]
            of_level = level if way == "down" else levels - 1 - level
            within = {"downsample": 0, "upsample": blocks}.get(which)
            within = int(which) + (way == "down") if within is None else within
            sub = 1 + (level in attending) if which == "upsample" else int(bool(attends))
            place = f"{'in' if way == 'down' else 'out'}put_blocks.{of_level * (blocks + 1) + within}.{sub}"
            resampled = {"conv": "op"} if which == "downsample" else {}
        table = ATTENTION if top.endswith("attention") else POOL if top == "pool" else INSIDE | resampled
        return ".".join([place, *(table.get(part, part) for part in rest)])

    return name_of
