"""Folders in the layout of diffusers: of a network, or of a pipeline with its scheduler."""

import json
import pathlib
from typing import Any

import numpy as np

from ddpm.errors import InputError, unknown_name
from ddpm.interop import diffusers_dit, diffusers_scheduler, diffusers_unet, safetensors_file, torch_file
from ddpm.interop.foreign import Foreign

CLASSES = {
    "UNet2DModel": diffusers_unet,
    "UNet2DConditionModel": diffusers_unet,
    "DiTTransformer2DModel": diffusers_dit,
}
PARTS = ("unet", "transformer")
CONFIG, SCHEDULER, WEIGHTS = "config.json", "scheduler_config.json", "diffusion_pytorch_model"


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
    kind = config.get("_class_name")
    if kind not in CLASSES:
        raise InputError(f"{folder / CONFIG}: {unknown_name('network', str(kind), CLASSES)}")
    foreign = CLASSES[kind].foreign(config, *_weights(folder))
    beside = folder.parent if folder.name in PARTS else folder
    if (beside / "vae" / CONFIG).is_file():
        foreign = foreign._replace(settings={"latents.autoencoder": str(beside / "vae")})
    for source in (beside / "scheduler" / SCHEDULER, beside / SCHEDULER):
        if source.is_file():
            said = diffusers_scheduler.settings(_json(source), source)
            return foreign._replace(settings=foreign.settings | said)
    return foreign


def write(
    folder: pathlib.Path, config: dict[str, Any], arrays: dict[str, np.ndarray], scheduler: dict[str, Any], card: str
) -> None:
    """A pipeline: network, scheduler, index and model card.

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
    save_file(arrays, folder / part / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})
    _write_json(folder / "scheduler" / SCHEDULER, scheduler)
    sampler = scheduler["_class_name"]
    index = {part: ["diffusers", kind], "scheduler": ["diffusers", sampler]}
    if kind == "UNet2DModel":
        index["_class_name"] = sampler.replace("Scheduler", "Pipeline")
    elif kind == "DiTTransformer2DModel":
        index |= {"_class_name": "DiTPipeline", "vae": [None, None]}
    else:
        index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        parts = ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
        index |= {name: [None, None] for name in parts}
    _write_json(folder / "model_index.json", index)
    (folder / "README.md").write_text(card, "utf-8")


def _weights(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], pathlib.Path]:
    safe, pickled = (folder / f"{WEIGHTS}.{kind}" for kind in ("safetensors", "bin"))
    if safe.is_file():
        return safetensors_file.read(safe), safe
    if pickled.is_file():
        return {name: array.astype(np.float32) for name, array in torch_file.read(pickled).items()}, pickled
    raise InputError(f"{folder} holds no {safe.name}: copy the weights there, in one file.")


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{file} cannot be read ({' '.join(str(error).split())}). Copy it again.") from error
    if not isinstance(config, dict):
        raise InputError(f"{file} holds {config!r:.40}, no configuration. Copy it again.")
    return config


def _write_json(file: pathlib.Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
