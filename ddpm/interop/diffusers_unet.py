"""UNet2DModel and UNet2DConditionModel of diffusers: their configurations and names, and ours."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm.errors import InputError
from ddpm.interop import said
from ddpm.interop.foreign import Foreign, Path, halves_swapped

SHARED = dict(
    sample_size=None, center_input_sample=False, freq_shift=0, flip_sin_to_cos=True, layers_per_block=2,
    mid_block_scale_factor=1, downsample_padding=1, dropout=0.0, act_fn="silu", attention_head_dim=8, norm_num_groups=32,
    norm_eps=1e-5, resnet_time_scale_shift="default", time_embedding_type="positional", time_embedding_dim=None,
    class_embed_type=None, num_class_embeds=None,
)  # fmt: skip
ATTENDING, BLOCKS = ("AttnDownBlock2D", "AttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
DEFAULTS = {  # of theirs, where config.json says nothing
    "UNet2DModel": SHARED | dict(
        in_channels=3, out_channels=3, block_out_channels=[224, 448, 672, 896], mid_block_type="UNetMidBlock2D",
        down_block_types=["DownBlock2D", *["AttnDownBlock2D"] * 3], up_block_types=[*["AttnUpBlock2D"] * 3, "UpBlock2D"],
        downsample_type="conv", upsample_type="conv", attn_norm_num_groups=None, add_attention=True,
    ),
    "UNet2DConditionModel": SHARED | dict(
        in_channels=4, out_channels=4, block_out_channels=[320, 640, 1280, 1280], cross_attention_dim=1280,
        mid_block_type="UNetMidBlock2DCrossAttn", down_block_types=[*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 3], num_attention_heads=None, only_cross_attention=False,
        transformer_layers_per_block=1, reverse_transformer_layers_per_block=None, encoder_hid_dim=None,
        encoder_hid_dim_type=None, dual_cross_attention=False, addition_embed_type=None, resnet_skip_time_act=False,
        resnet_out_scale_factor=1.0, time_embedding_act_fn=None, timestep_post_act=None, time_cond_proj_dim=None,
        conv_in_kernel=3, conv_out_kernel=3, attention_type="default", class_embeddings_concat=False,
        mid_block_only_cross_attention=None, cross_attention_norm=None,
    ),
}  # fmt: skip
EACH = said.either(said.COUNT, said.COUNTS)  # one for all levels, or one for each
# What others may be is the default alone, or one of SAME: the rest our U-Net has not.
FREE = {
    "sample_size": said.either(said.SIZE, said.NONE),
    "freq_shift": said.integer(0),
    "flip_sin_to_cos": said.BOOL,
    "layers_per_block": EACH,
    "downsample_padding": said.one_of(0, 1),
    "dropout": said.RATE,
    "attention_head_dim": said.either(EACH, said.NONE),
    "norm_num_groups": said.COUNT,
    "norm_eps": said.POSITIVE,
    "resnet_time_scale_shift": said.one_of("default", "scale_shift"),
    "num_class_embeds": said.either(said.COUNT, said.NONE),
    "in_channels": said.COUNT,
    "out_channels": said.COUNT,
    "block_out_channels": said.COUNTS,
    "down_block_types": said.NAMES,
    "up_block_types": said.NAMES,
    "downsample_type": said.one_of("conv", "resnet"),
    "upsample_type": said.one_of("conv", "resnet"),
    "attn_norm_num_groups": said.either(said.COUNT, said.NONE),
    "cross_attention_dim": EACH,
    "num_attention_heads": said.either(EACH, said.NONE),
}
SAME = {"act_fn": ("swish",), "only_cross_attention": (None,), "transformer_layers_per_block": ([1, 1, 1, 1],)}
RESIDUAL = {"norm_1": "norm1", "conv_1": "conv1", "norm_2": "norm2", "conv_2": "conv2"}
RESIDUAL |= {"time": "time_emb_proj", "skip": "conv_shortcut"}
SIMPLE = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
BLOCK = "transformer_blocks.0"
TRANSFORMER = {f"norm_{i}": f"{BLOCK}.norm{i}" for i in (1, 2, 3)}
TRANSFORMER |= {"mlp_1": f"{BLOCK}.ff.net.0.proj", "mlp_2": f"{BLOCK}.ff.net.2"}
TRANSFORMER |= {
    f"{ours}_{part}": f"{BLOCK}.{theirs}.{SIMPLE[part]}"
    for ours, theirs in (("self", "attn1"), ("cross", "attn2"))
    for part in ("query", "key", "value", "out")
}
TOP = {"norm_out": "conv_norm_out", "label": "class_embedding", "mid_attention": "mid_block.attentions.0"}
TOP |= {f"time_{i}": f"time_embedding.linear_{i}" for i in (1, 2)}
TOP |= {f"mid_{i}": f"mid_block.resnets.{i}" for i in (0, 1)}
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention, before 0.14
TIME = "time_embedding.linear_1.weight"


def names(levels: int, attention: str) -> Callable[[Path], str]:
    """Path of a module of our U-Net of so many levels, with such attention -> its name in theirs."""
    inside = {"attention": SIMPLE if attention == "simple" else TRANSFORMER}

    def name_of(path: Path) -> str:
        top, *rest = path
        place = TOP.get(top, top)
        if match := re.fullmatch(r"(down|up)_(\d+)_(\d+|downsample|upsample)(_attention)?", top):
            way, level, which, attends = match.groups()
            # They give the downsampling to the level it leaves, and number the way up from its start.
            at = int(level) - (which == "downsample") if way == "down" else levels - 1 - int(level)
            what = f"attentions.{which}" if attends else f"resnets.{which}" if which.isdigit() else f"{which}rs.0"
            place = f"{way}_blocks.{at}.{what}"
        table = inside["attention"] if top.endswith("attention") else RESIDUAL
        return ".".join([place, *(table.get(part, part) for part in rest)])

    return name_of


def foreign(config: dict[str, Any], arrays: dict[str, np.ndarray], file: pathlib.Path) -> Foreign:
    """The network that a config.json and its weights are.

    Raises:
      InputError: one that our U-Net cannot be.
    """
    kind, source = config["_class_name"], file.parent / "config.json"
    config = DEFAULTS[kind] | {key: value for key, value in config.items() if key in DEFAULTS[kind]}
    said.check(config, FREE, source)
    for key, value in config.items():
        default = DEFAULTS[kind][key]
        if key not in FREE and value != default and value not in SAME.get(key, ()):
            raise _refused(source, f"{key} = {value!r}", f"it knows {default!r} alone")
    size = config["sample_size"]
    if not size:
        raise InputError(f"{source} says no sample_size: add the height of the images it was trained with.")
    height, width = size if isinstance(size, list) else (size, size)
    widths, is_told = config["block_out_channels"], kind == "UNet2DConditionModel"
    if any(value % widths[0] for value in widths):
        raise _refused(
            source, f"block_out_channels = {widths}", "its levels have multiples of the first one's features"
        )
    down, up = config["down_block_types"], config["up_block_types"]
    if not len(down) == len(up) == len(widths):
        raise _refused(
            source, f"blocks {down}, {up}", f"both ways have one for each of {len(widths)} block_out_channels"
        )
    prefix = "CrossAttn" if is_told else "Attn"
    resampled = "Resnet" if not is_told and config["downsample_type"] == "resnet" else ""
    allowed = {f"{prefix}DownBlock2D", "ResnetDownsampleBlock2D" if resampled else "DownBlock2D"}
    allowed |= {f"{prefix}UpBlock2D", "ResnetUpsampleBlock2D" if resampled else "UpBlock2D"}
    attending = [name.startswith(prefix) for name in down]
    if not allowed.issuperset([*down, *up]) or attending != [name.startswith(prefix) for name in reversed(up)]:
        raise _refused(
            source, f"blocks {down}, {up}", f"both ways have {', '.join(sorted(allowed))} at the same levels"
        )
    if not is_told and config["downsample_type"] != config["upsample_type"]:
        raise _refused(source, "downsample_type other than upsample_type", "both are 'conv' or both 'resnet'")
    groups, scale_shift = config["norm_num_groups"], config["resnet_time_scale_shift"] == "scale_shift"
    if not is_told and (config["attn_norm_num_groups"] or (None if scale_shift else groups)) != groups:
        raise _refused(
            source, "an attention in the middle without norm, or of other groups", "give attn_norm_num_groups"
        )
    outputs, images = config["out_channels"], config["in_channels"]
    learned = outputs == 2 * images
    arrays = {_of_today(name): array for name, array in arrays.items()}
    if config["flip_sin_to_cos"] and TIME in arrays:
        arrays[TIME] = halves_swapped(arrays[TIME])
    attention = "transformer" if is_told else "simple"
    return Foreign(
        file,
        "unet",
        {
            "patch": 1,
            "channels": widths[0],
            "channel_mult": tuple(value // widths[0] for value in widths),
            "num_res_blocks": _one(source, "layers_per_block", config["layers_per_block"]),
            "attention_resolutions": tuple(height // 2**level for level, attends in enumerate(attending) if attends),
            "attention": attention,
            "time": "norm",
            **_heads(source, config, is_told),
            "dropout": float(config["dropout"]),
            "scale_shift": scale_shift,
            "norm_groups": groups,
            "norm_eps": float(config["norm_eps"]),
            "downsample_padding": config["downsample_padding"],
            "resblock_updown": bool(resampled),
            "freq_shift": config["freq_shift"],
            "time_channels": 0,
            "fourier": (),
        },
        (height, width, images if learned else outputs),
        learned,
        arrays,
        names(len(widths), attention),
        labels=config["num_class_embeds"] or 0,
        text=_one(source, "cross_attention_dim", config["cross_attention_dim"]) if is_told else 0,
    )


def config_of(options: dict[str, Any], shape: tuple[int, int, int], outputs: int, labels: int, text: int) -> dict:
    """config.json of our U-Net with these options, for images of a shape; `text` as in Foreign, `outputs` its channels.

    Raises:
      InputError: diffusers has no such network.
    """
    height, width, channels = shape
    for key, value in (("patch", 1), ("time", "norm"), ("fourier", ()), ("time_channels", 0)):
        if options[key] != value:
            raise InputError(f"diffusers has no U-Net with model.unet.{key} = {options[key]!r}, only with {value!r}.")
    is_told = options["attention"] == "transformer"
    if is_told != bool(text):
        raise InputError(
            f"diffusers has no U-Net with model.unet.attention = {options['attention']!r} that is told "
            f"{'a' if text else 'no'} text: it goes with 'transformer'."
        )
    widths = [options["channels"] * mult for mult in options["channel_mult"]]
    attends = [height // 2**level in options["attention_resolutions"] for level in range(len(widths))]
    prefix, resampled = "CrossAttn" if is_told else "Attn", options["resblock_updown"]
    if is_told and resampled:
        raise InputError("diffusers has no U-Net that is told a text with model.unet.resblock_updown = True.")
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resampled else BLOCKS
    kind = "UNet2DConditionModel" if is_told else "UNet2DModel"
    heads, each = options["num_heads"], options["head_channels"]
    # UNet2DConditionModel calls the number of heads attention_head_dim.
    told = [width // each for width in widths] if each else heads
    if not is_told and not each and heads > 1:
        if len({width for width, here in zip(widths, attends, strict=True) if here} | {widths[-1]}) > 1:
            raise InputError(
                f"diffusers has no UNet2DModel with {heads} heads of different widths: train with model.unet.head_channels."
            )
        each = widths[-1] // heads
    return {"_class_name": kind} | {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": outputs,
        "block_out_channels": widths,
        "layers_per_block": options["num_res_blocks"],
        "down_block_types": [f"{prefix}DownBlock2D" if here else plain[0] for here in attends],
        "up_block_types": [f"{prefix}UpBlock2D" if here else plain[1] for here in reversed(attends)],
        "attention_head_dim": told if is_told else each or None,
        "dropout": options["dropout"],
        "norm_num_groups": options["norm_groups"],
        "norm_eps": options["norm_eps"],
        "resnet_time_scale_shift": "scale_shift" if options["scale_shift"] else "default",
        "downsample_padding": options["downsample_padding"],
        "freq_shift": options["freq_shift"],
        "flip_sin_to_cos": True,
        "num_class_embeds": labels or None,
        **(
            {"cross_attention_dim": text}
            if is_told
            else {
                "attn_norm_num_groups": options["norm_groups"],
                "downsample_type": "resnet" if resampled else "conv",
                "upsample_type": "resnet" if resampled else "conv",
            }
        ),
    }


def _heads(source, config, is_told):
    given = config["attention_head_dim"]
    if not is_told and isinstance(given, list):
        raise _refused(source, f"attention_head_dim = {given}", "its heads have one width")
    if not is_told:
        return {"num_heads": 1, "head_channels": given or 0}
    given = config["num_attention_heads"] or given
    widths = config["block_out_channels"]
    if isinstance(given, int):
        return {"num_heads": given, "head_channels": 0}
    if not given or len(given) != len(widths) or len({width / n for width, n in zip(widths, given, strict=True)}) > 1:
        raise _refused(source, f"attention_head_dim = {given}", "its heads have one number, or one width")
    return {"num_heads": 1, "head_channels": widths[0] // given[0]}


def _one(source, key, value):
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    if not isinstance(value, int):
        raise _refused(source, f"{key} = {value!r}", "it has one number for all levels")
    return value


def _of_today(name):
    return re.sub(
        r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda match: f"{match[1]}.{OLD[match[2]]}.", name
    )


def _refused(source, what, why):
    return InputError(f"{source}: {what} is no network that our U-Net can be: {why}.")
