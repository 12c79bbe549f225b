"""Experiments: read from JSON, and compared with the one a run was started with."""

import json

from ml_collections import ConfigDict

from ddpm.errors import InputError

# What makes other parameters of the same checkpoint, or other meaning of the same parameters.
FIXED = ("data.name", "model", "schedule", "optimizer.name", "optimizer.accumulate", "seed")


def to_json(config: ConfigDict) -> dict:
    """The configuration as plain JSON."""
    return json.loads(config.to_json())


def from_json(values: dict) -> ConfigDict:
    """A configuration from JSON, lists as the tuples they were."""

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return ConfigDict(tuples(values))


def flat(values: dict, prefix: str = "") -> dict:
    """The leaves of a nested dictionary by their dotted names."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def differences(old: dict, new: dict) -> dict[str, tuple]:
    """Keys that differ between two JSON configurations, by dotted name: (old value, new value)."""
    old, new = flat(old), flat(new)
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in sorted(old.keys() | new.keys())}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b}


def check_same_run(old: dict, new: dict, workdir: str, accept: bool) -> list[str]:
    """Sentences on the keys that changed since the run was started.

    Args:
      old, new: JSON configurations.
      accept: let changes pass that make it another experiment.
    Raises:
      InputError: the model, process, data, seed or optimizer changed.
    """
    changed = differences(old, new)
    named = [f"{key}: {a!r} -> {b!r}" for key, (a, b) in changed.items()]
    fatal = [line for line in named if any(line.startswith((key + ".", key + ":")) for key in FIXED)]
    if fatal and not accept:
        raise InputError(
            f"{workdir} holds another experiment: {'; '.join(fatal)}. Give its own configuration, another --workdir, "
            "or --accept_changes to go on with its parameters all the same."
        )
    return named
