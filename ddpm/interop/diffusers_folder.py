"""Folders in the layout of diffusers: of a network, or of a pipeline with its scheduler."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from ddpm.data.images import Scale
from ddpm.errors import InputError, unknown_name
from ddpm.interop import diffusers_dit, diffusers_scheduler, diffusers_unet, said, weight_file
from ddpm.interop.foreign import Foreign

CLASSES = {
    "UNet2DModel": diffusers_unet,
    "UNet2DConditionModel": diffusers_unet,
    "DiTTransformer2DModel": diffusers_dit,
}
PARTS = ("unet", "transformer")
AUTOENCODERS = ("vae", "vqvae")
CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
INDEX, LATENTS = "model_index.json", "latents.json"  # the latter is ours: the scale of the latents of a run
NUMBERS = {"mean": said.listed(said.NUMBER, "numbers"), "std": said.listed(said.POSITIVE, "numbers above 0")}
NUMBERS |= {"autoencoder": said.NAME}


def read(path: pathlib.Path) -> Foreign:
    """The network in a folder, and what the scheduler beside it says.

    Raises:
      InputError: there is none, it cannot be read, or it has no counterpart here.
    """
    folder = next((path / part for part in PARTS if (path / part / CONFIG).is_file()), path)
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{path} holds no {CONFIG}, nor does a folder unet or transformer in it: give a folder that diffusers saved."
        )
    config = _json(folder / CONFIG)
    said.check(config, {"_class_name": said.either(said.NAME, said.NONE)}, folder / CONFIG)
    kind = config.get("_class_name")
    if kind not in CLASSES:
        raise InputError(f"{folder / CONFIG}: {unknown_name('network', str(kind), CLASSES)}")
    file = weight_file.in_folder(folder)
    foreign = CLASSES[kind].foreign(config, weight_file.read(file), file)
    beside = folder.parent if folder.name in PARTS else folder
    if autoencoder := _autoencoder(beside):
        foreign = foreign._replace(settings={"latents.autoencoder": str(autoencoder)})
    if (beside / LATENTS).is_file():
        foreign = foreign._replace(scale=_scale(beside / LATENTS, foreign.shape[-1]))
    for source in (beside / "scheduler" / SCHEDULER, beside / SCHEDULER, folder / SCHEDULER):
        if source.is_file():
            config = _json(source)
            settings = foreign.settings | diffusers_scheduler.settings(config, source)
            return foreign._replace(settings=settings, differs=diffusers_scheduler.differs(config))
    return foreign


def write(
    folder: pathlib.Path,
    config: dict[str, Any],
    arrays: dict[str, np.ndarray],
    scheduler: dict[str, Any],
    card: str,
    scale: Scale | None,
) -> None:
    """A pipeline: network, scheduler, index, model card, and the scale of the latents that it is of.

    Args:
      config: of the network, and `scheduler`, with their _class_name.
      card: the text of README.md.
    """
    from safetensors.numpy import save_file

    kind = config["_class_name"]
    part = "transformer" if kind == "DiTTransformer2DModel" else "unet"
    for name in (part, "scheduler"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write_json(folder / part / CONFIG, config)
    arrays = {
        name: np.ascontiguousarray(array) for name, array in arrays.items()
    }  # the library writes others in disorder
    save_file(arrays, folder / part / f"{weight_file.NAME}.safetensors", metadata={"format": "pt"})
    _write_json(folder / "scheduler" / SCHEDULER, scheduler)
    sampler = scheduler["_class_name"]
    index = {part: ["diffusers", kind], "scheduler": ["diffusers", sampler]}
    if kind == "UNet2DModel" and scale:
        index |= {"_class_name": "LDMPipeline", "vqvae": [None, None]}
    elif kind == "UNet2DModel":
        index["_class_name"] = sampler.replace("Scheduler", "Pipeline")
    elif kind == "DiTTransformer2DModel":
        index |= {"_class_name": "DiTPipeline", "vae": [None, None]}
    else:
        index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        parts = ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
        index |= {name: [None, None] for name in parts}
    _write_json(folder / INDEX, index)
    if scale:
        _write_json(folder / LATENTS, dataclasses.asdict(scale))
    (folder / "README.md").write_text(card, "utf-8")


def _autoencoder(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder of a pipeline's autoencoder, which need not be there where its index says that it has one."""
    index = _json(folder / INDEX) if (folder / INDEX).is_file() else {}
    for name in AUTOENCODERS:
        named = index.get(name)
        if (folder / name / CONFIG).is_file() or (isinstance(named, list) and any(named)):
            return folder / name
    return None


def _scale(file: pathlib.Path, channels: int) -> Scale:
    scale = dict.fromkeys(NUMBERS) | _json(file)
    said.check(scale, NUMBERS, file)
    if not len(scale["mean"]) == len(scale["std"]) == channels:
        raise InputError(
            f"{file}: mean and std must have {channels} numbers each, one for each channel of the latents."
        )
    return Scale(tuple(scale["mean"]), tuple(scale["std"]), scale["autoencoder"])


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({' '.join(str(error).split())}). Copy it again.") from error
    if not isinstance(config, dict):
        raise InputError(f"{file} holds {config!r:.40}, no configuration. Copy it again.")
    return config


def _write_json(file: pathlib.Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
