"""From names in a configuration to code."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from ddpm.errors import InputError, unknown_name


def find(kind: str, place: str, name: str) -> Callable:
    """The public function or class `name` of a module; in a package, the one that its file `name`.py is named after.

    A name with dots is a full path, so that code outside `ddpm` is found too.

    Args:
      kind: what it is, for the error.
      place: module or package, such as 'ddpm.sampling'.
    Raises:
      InputError: nothing has that name; the known ones and the nearest are listed.
    """
    if "." in name:
        place, _, name = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{kind} '{place}.{name}' cannot be imported: {error}.") from error
        if not callable(found):
            raise InputError(f"{kind} '{place}.{name}' is no function or class, but {found!r:.50}.")
        return found
    known = public(importlib.import_module(place), name) or public(importlib.import_module(place))
    if name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def public(module: ModuleType, only: str | None = None) -> dict[str, Callable]:
    """What `find` finds in a module or package, by name; with `only`, that name alone, and no other file is imported."""
    found = {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and only in (None, name)
        and not name.startswith("_")
        and value.__module__.startswith(module.__name__)
    }
    for file in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if only in (None, file.name) and module.__name__.startswith("ddpm."):
            inside = public(importlib.import_module(f"{module.__name__}.{file.name}"))
            bare = file.name.replace("_", "")
            found |= {file.name: value for name, value in inside.items() if name.lower() in (file.name, bare)}  # noqa: B035
    return found


def call(kind: str, function: Callable, *args: Any, options: dict) -> Any:
    """function(*args, **options), with a clear error for an option it does not have or lacks.

    Raises:
      InputError: the options do not fit.
    """
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters)
        raise InputError(f"{kind} {function.__name__!r}: {error}; it takes {takes}.") from error
    if inspect.isabstract(function):
        raise InputError(f"{kind} {function.__name__!r} is abstract: name one that is made of it.")
    return function(*args, **options)


def own_name(section: ConfigDict) -> str:
    """The choice's name without the path of a dotted one: where its options stand in the section."""
    return section.name.rpartition(".")[2]


def options_of(section: ConfigDict) -> dict:
    """The options a section holds for the choice it names, if there are any."""
    return dict(section[own_name(section)]) if own_name(section) in section else {}


def update(name: str, section: ConfigDict, values: dict) -> None:
    """Sets keys of a section.

    Raises:
      InputError: a key that the section does not have, or a value of another type.
    """
    for key, value in values.items():
        if key not in section:
            raise unknown_name(f"key of {name}", key, section.keys())
        try:
            section[key] = (value,) if isinstance(value, str) and isinstance(section[key], tuple) else value
        except TypeError as error:
            raise InputError(f"{name}.{key} = {value!r} is no {type(section[key]).__name__}.") from error


def chosen(kind: str, place: ModuleType, section: ConfigDict, *given: Any) -> Any:
    """What the function that a section names makes of `given` and its options."""
    return call(kind, find(kind, place.__name__, section.name), *given, options=options_of(section))
