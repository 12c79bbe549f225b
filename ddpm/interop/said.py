"""What a configuration of others may say: each key of a file's is checked before it is used."""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ddpm.errors import InputError


class Kind(NamedTuple):
    """Values that a key may have: `what` they are, and whether a value `is_one` of them."""

    what: str
    is_one: Callable[[Any], bool]


def check(config: Mapping[str, Any], kinds: Mapping[str, Kind], source: pathlib.Path) -> None:
    """Raises InputError for a key that is there with a value of another kind: the file, the key, the value, the kind."""
    for key, kind in kinds.items():
        if key in config and not kind.is_one(config[key]):
            raise InputError(f"{source}: {key} = {config[key]!r:.60} must be {kind.what}.")


def integer(low: int) -> Kind:
    """Integers from `low`."""
    return Kind(f"an integer, at least {low}", lambda value: type(value) is int and value >= low)


def one_of(*values: Any) -> Kind:
    """These alone."""
    return Kind(" or ".join(map(repr, values)), lambda value: any(value == known for known in values))


def either(*kinds: Kind) -> Kind:
    """Of any of these kinds."""
    return Kind(", or ".join(kind.what for kind in kinds), lambda value: any(kind.is_one(value) for kind in kinds))


def listed(kind: Kind, what: str) -> Kind:
    """A list of one or more of a kind, called `what`."""
    return Kind(
        f"a list of {what}", lambda value: isinstance(value, list) and bool(value) and all(map(kind.is_one, value))
    )


def number(what: str, holds: Callable[[float], bool] = lambda value: True) -> Kind:
    """Finite numbers of which something holds."""
    return Kind(what, lambda value: type(value) in (int, float) and math.isfinite(value) and holds(value))


COUNT = integer(1)
COUNTS = listed(COUNT, "integers, each at least 1")
SIZE = either(COUNT, Kind("a list of two of them", lambda value: COUNTS.is_one(value) and len(value) == 2))
NUMBER = number("a number")
POSITIVE = number("a number above 0", lambda value: value > 0)
BETA = number("a number above 0 and below 1", lambda value: 0 < value < 1)
RATE = number("a number from 0, below 1", lambda value: 0 <= value < 1)
NAME = Kind("a name", lambda value: isinstance(value, str))
NAMES = listed(NAME, "names")
BOOL = Kind("true or false", lambda value: isinstance(value, bool))
NONE = Kind("null", lambda value: value is None)
