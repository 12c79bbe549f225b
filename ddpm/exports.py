"""--mode export: a run as a folder of diffusers."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ddpm import datasets, objective, run
from ddpm.config import flat, in_use, to_json
from ddpm.errors import InputError
from ddpm.evaluation import records
from ddpm.interop import diffusers_dit, diffusers_folder, diffusers_scheduler, diffusers_unet, model_card
from ddpm.interop.foreign import arrays_of, halves_swapped
from ddpm.names import options_of
from ddpm.trained import Trained, read

LICENCE = (
    "that of the data and of the one who trained it, which this run does not know: state it before you give it away"
)


def export_run(workdir: pathlib.Path, step: int | str | None, out: pathlib.Path) -> int:
    """Writes the EMA parameters of a run as a pipeline of diffusers, with a model card; returns the exit code.

    Args:
      step: of the checkpoint, or 'best'; None for the newest.
      out: the folder, which need not be there.
    Raises:
      InputError: no such run, or diffusers has no counterpart of it.
    """
    trained = read(workdir, run.best(workdir) if step == "best" else step)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} is there already: give a new folder.")
    config, params = trained.config, {name: part for name, part in trained.params.items() if name != "uncertainty"}
    diffusion = trained.diffusion
    _check(trained)
    found, told = flat(config.to_dict()), diffusion.told
    outputs = trained.facts.shape[-1] * (1 + diffusion.learned_variance)
    options = options_of(config.model)
    if config.model.name == "dit":
        network = diffusers_dit.config_of(options, trained.facts.shape, outputs, told.num_labels, told.null is not None)
        arrays, time = arrays_of(params, diffusers_dit.name_of), diffusers_dit.TIME
    else:
        options["norm_groups"] = options["norm_groups"] or _groups(params)
        text = told.some.text.shape[-1] if told.encoder else 0
        network = diffusers_unet.config_of(options, trained.facts.shape, outputs, told.num_labels, text)
        names = diffusers_unet.names(len(options["channel_mult"]), options["attention"])
        arrays, time = arrays_of(params, names), diffusers_unet.TIME
    if config.process.VP.told != "index":
        arrays[time] = _of_one_less(arrays[time], options["freq_shift"])
    arrays[time] = np.ascontiguousarray(halves_swapped(arrays[time]))
    if config.model.name == "dit":
        arrays = diffusers_dit.as_theirs(arrays, options)
    learned = diffusion.learned_variance
    scheduler = diffusers_scheduler.config_of(found, diffusion.process.alpha_bar, learned)
    differs = diffusers_scheduler.not_told(found, learned)
    diffusers_folder.write(out, network, arrays, scheduler, _card(trained, diffusion, differs), trained.facts.scale)
    kind = network["_class_name"]
    print(
        f"diffusers {out}: {kind} with {scheduler['_class_name']}, of step {trained.step} (EMA); its README.md says what of"
    )
    for line in differs:
        print(f"differs   {line}")
    return 0


def _check(trained: Trained) -> None:
    """Refuses what diffusers has no counterpart of."""
    config, diffusion = trained.config, trained.diffusion
    if config.model.name not in ("unet", "dit") or diffusion.classifies:
        raise InputError(f"diffusers has no counterpart of model '{config.model.name}', only of unet and dit.")
    if config.process.name != "VP":
        raise InputError(
            f"diffusers' schedulers here have no counterpart of process '{config.process.name}', only of VP."
        )
    if config.condition.image.name:
        raise InputError("diffusers has no pipeline of a model that is told an image as condition.image tells it.")
    if config.process.VP.told != "index" and config.schedule.T != 1000:
        raise InputError(
            f"diffusers tells networks the index of a time, and this one was trained on 1000 t / T with T = "
            f"{config.schedule.T}: only T = 1000, or process.VP.told = 'index', can be exported."
        )


def _groups(params: Any) -> int:
    """The number of groups that all group norms of a U-Net have."""
    from ddpm.models.layers import group_norm

    widths = {
        len(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "scale" and not (path[-2].key.startswith("norm_") and "attention" in path[0].key)
    }
    groups = {group_norm(width, name="norm").num_groups for width in widths}
    if len(groups) > 1:
        raise InputError(
            f"diffusers has one number of groups in all group norms, and this U-Net has {sorted(groups)}: train it with "
            "model.unet.norm_groups, or with more channels."
        )
    return groups.pop()


def _of_one_less(kernel: np.ndarray, freq_shift: int) -> np.ndarray:
    """The Linear [out, sines and cosines of t] as that of t - 1, which is what diffusers tells: t's are turned by w.

    sin(t) = sin(t - 1) cos w + cos(t - 1) sin w,  cos(t) = cos(t - 1) cos w - sin(t - 1) sin w.
    """
    half = kernel.shape[1] // 2
    w = 10_000.0 ** (-np.arange(half) / (half - freq_shift))
    sines, cosines = np.split(kernel.astype(np.float64), 2, axis=1)
    turned = [sines * np.cos(w) - cosines * np.sin(w), sines * np.sin(w) + cosines * np.cos(w)]
    return np.concatenate(turned, axis=1).astype(np.float32)


def _card(trained: Trained, diffusion: objective.Diffusion, differs: Sequence[str]) -> str:
    config, (height, width, channels) = trained.config, trained.facts.shape
    parts = {
        "data": (
            f"{datasets.data_name(config)}: {trained.facts.count} images"
            if trained.facts.count
            else "others', imported"
        )
        + f", {height} x {width} x {channels}"
        + (f", {len(trained.facts.classes)} classes" if trained.facts.classes else ""),
        "steps": f"{trained.step} of {config.training.batch_size} images, EMA {config.ema.decay:g}",
        "network": f"{config.model.name}, {sum(leaf.size for leaf in jax.tree.leaves(trained.params)):,} parameters",
        "process": f"{config.process.name}, schedule {config.schedule.name} of {config.schedule.T} levels, "
        f"prediction {config.prediction.name}" + (", learned variance" if diffusion.learned_variance else ""),
        "licence": LICENCE,
    }
    if scale := trained.facts.scale:
        parts["latents"] = f"(latents - {list(scale.mean)}) / {list(scale.std)} of {config.latents.autoencoder}"
    if differs:
        parts["sampling"] = "not as here: " + "; ".join(differs)
    rows = [row for row in records.read(trained.workdir) if row["provenance"]["generated"].get("step") == trained.step]
    used = json.dumps(in_use(to_json(ConfigDict(config.to_dict()))), indent=1)
    return model_card.card(name=trained.workdir.resolve().name, parts=parts, records=rows, config=used)
