"""Settings of runs: values by dotted key, which the command line or a function of an experiment gives."""

import itertools
import pathlib
import re
import runpy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from ddpm.config import flat
from ddpm.errors import InputError, in_file, unknown_name

Settings = dict[str, Any]

SHARED = ("training.cpu_devices",)  # of the process, which may train several runs
PARSERS = {  # those of `--config.key=value`
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    tuple: tuple_parser.TupleParser(),
    str: flags.ArgumentParser(),
}


def listed(text: str, config: ConfigDict) -> list[Settings]:
    """The runs that `--sweep` asks for: the product of values by key, the last key's first.

    Args:
      text: such as 'optimizer.learning_rate=1e-4,2e-4 seed=0..2'.
    Raises:
      InputError: what is none, an unknown key, a value of another type, or the same run twice.
    """
    axes = {}
    for word in _split(r"\s+", text.strip()):
        key, equals, values = word.partition("=")
        if not equals:
            raise InputError(
                f"--sweep: {word!r} is not key=value,value or key=0..2, such as 'optimizer.learning_rate=1e-4,2e-4 seed=0..2'."
            )
        if key in axes:
            raise InputError(f"--sweep: {key} is given twice: write its values with commas.")
        axes[key] = [value for part in _split(",", values) for value in _range(part, key, config)]
    combinations = itertools.product(*axes.values())
    return _distinct([checked(dict(zip(axes, values, strict=True)), config) for values in combinations])


def added(sweep: Callable[[Callable[[Settings], None]], None], config: ConfigDict) -> list[Settings]:
    """The runs that a function of an experiment adds: `sweep(add)` calls add({'optimizer.learning_rate': 1e-4}) for each.

    Raises:
      InputError: it fails, or adds none, an unknown key, a value of another type, or the same run twice.
    """
    runs = []
    called(sweep, lambda settings: runs.append(checked(settings, config)))
    if not runs:
        raise InputError("sweep(add) of the experiment adds no run: call add({'seed': 0}) for each.")
    return _distinct(runs)


def function(file: str, name: str) -> Callable | None:
    """The function of that name in an experiment's file, if it has one."""
    return runpy.run_path(file).get(name)


def called(function: Callable, *args: Any) -> None:
    """Calls a function of an experiment; what goes wrong in it is told as one line.

    Raises:
      InputError: it raised anything.
    """
    try:
        function(*args)
    except InputError:
        raise
    except Exception as error:  # whatever the user's file raises
        raise in_file(function.__code__.co_filename, error) from error


def checked(settings: Settings, config: ConfigDict) -> Settings:
    """Settings with values of the types that the configuration has; text is read as in `--config.key=value`.

    Raises:
      InputError: an unknown key, or a value of another type.
    """
    known = flat(config.to_dict())
    for key in settings:
        if key not in known:
            raise unknown_name("configuration key", key, known)
        if key in SHARED:
            raise InputError(f"{key} is the same for all runs of a sweep: give --config.{key}=VALUE.")
    return {key: _typed(key, value, type(known[key])) for key, value in settings.items()}


def changed(config: ConfigDict, settings: Settings) -> ConfigDict:
    """A configuration with other values."""
    new = config.copy_and_resolve_references()
    new.update_from_flattened_dict(settings)
    return new


def said(settings: Settings) -> str:
    """Settings as `--sweep` has them."""
    return " ".join(f"{key}={value}".replace(" ", "") for key, value in settings.items())


def folder(workdir: pathlib.Path, number: int, settings: Settings, digits: int) -> pathlib.Path:
    """The directory of a run: its number, and in letters that every file system takes what it is."""
    short = {key.removesuffix(".name").rpartition(".")[2]: value for key, value in settings.items()}
    words = [f"{key}_{value:.4g}" if isinstance(value, float) else f"{key}_{value}" for key, value in short.items()]
    safe = re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(words))[:60].strip("._-")
    return workdir / f"{number:0{digits}d}-{safe}"


def _split(separator: str, text: str) -> list[str]:
    return re.split(rf"{separator}(?![^(]*\))", text)  # not within the parentheses of a tuple


def _range(text: str, key: str, config: ConfigDict) -> Iterable[Any]:
    ends = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text)
    if not ends or not isinstance(flat(config.to_dict()).get(key), int):
        return [text]
    low, high = map(int, ends.groups())
    if low > high:
        raise InputError(f"--sweep: {key}={text} is empty: write the lower number first.")
    return range(low, high + 1)


def _typed(key: str, value: Any, kind: type) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    try:
        if isinstance(value, str):
            value = PARSERS[kind].parse(value)
    except (ValueError, TypeError):
        value = str(value)
    value = float(value) if kind is float and type(value) is int else value
    value = tuple(value) if kind is tuple and isinstance(value, list) else value
    if type(value) is not kind:
        raise InputError(f"{key} = {value!r} is no {kind.__name__}.")
    return value


def _distinct(runs: list[Settings]) -> list[Settings]:
    for number, settings in enumerate(runs):
        if settings in runs[:number]:
            raise InputError(f"runs {runs.index(settings)} and {number} of the sweep are the same: {said(settings)}.")
    return runs
