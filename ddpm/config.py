"""Experiments: read from JSON, and compared with the one a run was started with."""

import json

from ml_collections import ConfigDict

from ddpm.errors import InputError

# What makes other parameters of the same checkpoint, or other meaning of the same parameters ...
FIXED = (
    "data",
    "latents",
    "model",
    "autoencoder",
    "condition",
    "process",
    "schedule",
    "log_snr",
    "prediction",
    "loss",
    "timesteps",
    "optimizer.name",
    "seed",
)
# ... but for these keys, which do not.
FREE = (
    "data_dir",
    "path",
    "latents.autoencoder",
    "latents.batch_size",
    "resident_bytes",
    "flip",
    "remat",
    "dtype",
    "dropout",
)

# Keys that are newer than some runs, with what those did.
NEWER = {
    "training.hang_after": 600,
    "mesh.fsdp": 1,
    "mesh.tensor": 1,
    "latents.autoencoder": "",
    "latents.path": "",
    "latents.batch_size": 32,
    "condition.labels": False,
    "condition.null_rate": 0.1,
    "model.unet.patch": 1,
    "model.unet.attention": "simple",
    "model.unet.time": "norm",
    "model.unet.head_channels": 0,
    "model.unet.norm_groups": 0,
    "model.unet.norm_eps": 1e-6,
    "model.unet.downsample_padding": 0,
    "model.unet.resblock_updown": False,
    "model.unet.freq_shift": 1,
    "model.unet.time_channels": 0,
    "model.dit.freq_shift": 1,
    "model.noisy_classifier.head_channels": 0,
    "model.noisy_classifier.norm_groups": 0,
    "model.noisy_classifier.norm_eps": 1e-6,
    "model.noisy_classifier.downsample_padding": 0,
    "model.noisy_classifier.resblock_updown": False,
    "model.noisy_classifier.freq_shift": 1,
    "model.noisy_classifier.as_published": False,
    "process.VP.told": "share",
    "condition.text.clip.padded": False,
    "sampler.percentile": 0.0,
    "condition.text.name": "",
    "condition.image.name": "",
    "sampler.labels": [],
    "sampler.prompts": [],
    "sampler.given": "",
    "sampler.given_noise": 0.0,
    "known.name": "",
    "known.resamples": 1,
    "guidance.scale": 1.0,
    "guidance.interval": [0.0, float("inf")],
    "guidance.rescale": 0.0,
    "guidance.worse": "",
    "guidance.classifiers": [],
    "guidance.classifier_scale": 1.0,
    "guidance.functions": [],
    "guidance.function_scale": 1.0,
    "grid.final": "zero",
    "autoencoder.name": "",
    "autoencoder.pixel_loss": "l1",
    "autoencoder.perceptual_weight": 0.0,
    "autoencoder.perceptual_path": "",
    "autoencoder.discriminator_weight": 0.0,
    "autoencoder.discriminator_start": 50_000,
    "autoencoder.discriminator_channels": 64,
}
RENAMED = {("grid.name", "uniform"): "trailing"}
MOVED = {"condition.label_dropout": "condition.null_rate"}


def to_json(config: ConfigDict) -> dict:
    """The configuration as plain JSON."""
    return json.loads(config.to_json())


def from_json(values: dict) -> ConfigDict:
    """A configuration from JSON, lists as the tuples they were, brought up to date."""

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return ConfigDict(tuples(up_to_date(values)))


def up_to_date(values: dict) -> dict:
    """A JSON configuration of any age as one of today, which does the same."""
    values = json.loads(json.dumps(values))
    for old, new in MOVED.items():
        (section, old), new = old.split("."), new.rpartition(".")[2]
        if old in values.get(section, {}):
            values[section][new] = values[section].pop(old)
    for dotted, value in NEWER.items():
        *path, key = dotted.split(".")
        section = values
        for name in path:
            section = section.setdefault(name, {})
        section.setdefault(key, value)
    for (dotted, old), new in RENAMED.items():
        section, _, key = dotted.partition(".")
        if values[section].get(key) == old:
            values[section][key] = new
    return values


def flat(values: dict, prefix: str = "") -> dict:
    """The leaves of a nested dictionary by their dotted names."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def in_use(values: dict) -> dict:
    """The leaves of a JSON configuration without the options of choices that it does not name."""
    return flat(_chosen(values))


def differences(old: dict, new: dict) -> dict[str, tuple]:
    """Keys in use that differ between two JSON configurations, by dotted name: (old value, new value)."""
    old, new = in_use(old), in_use(new)
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in sorted(old.keys() | new.keys())}
    changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    # Of a section that names another choice, the name says it all.
    return {
        key: pair for key, pair in changed.items() if key.count(".") < 2 or f"{key.split('.')[0]}.name" not in changed
    }


def _chosen(config: dict) -> dict:
    """Without the options of choices that a section does not name."""
    return {
        name: _chosen({key: value for key, value in section.items() if _is_used(section, key, value)})
        if isinstance(section, dict)
        else section
        for name, section in config.items()
    }


def _is_used(section, key, value):
    return "name" not in section or not isinstance(value, dict) or key == section["name"].rpartition(".")[2]


def check_same_run(old: dict, new: dict, workdir: str, accept: bool) -> list[str]:
    """Sentences on the keys that changed since the run was started.

    Args:
      old, new: JSON configurations.
      accept: let changes pass that make it another experiment.
    Raises:
      InputError: the model, process, data, seed or kind of optimizer changed.
    """
    changed = differences(up_to_date(old), new)
    named = [f"{key}: {a!r} -> {b!r}" for key, (a, b) in changed.items()]
    fatal = [
        line
        for line, key in zip(named, changed, strict=True)
        if not {key, key.rpartition(".")[2]} & set(FREE)
        and any(key == fixed or key.startswith(fixed + ".") for fixed in FIXED)
    ]
    if "optimizer.accumulate" in changed:
        before, now = changed["optimizer.accumulate"]
        raise InputError(
            f"optimizer.accumulate: {before} -> {now}: steps of {workdir} are counted in {before} batches each, so it cannot "
            "change. Change training.batch_size, or give another --workdir."
        )
    if fatal and not accept:
        raise InputError(
            f"{workdir} holds another experiment: {'; '.join(fatal)}. Give its own configuration, another --workdir, "
            "or --accept_changes to go on with its parameters all the same, if they fit."
        )
    return named
