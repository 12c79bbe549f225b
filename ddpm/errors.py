"""The one exception for a user's mistake, and the sentence for an unknown name."""

import difflib
import traceback
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what the user gave: one line with the value, the rule and the remedy.

    `ddpm.main` prints it without a traceback and exits with code 2.
    """


class MachineError(InputError):
    """What is no mistake of the user: a full disk, a store that does not answer; the same command may do another time."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that nothing answers to: lists the known ones and the nearest."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    if len(known) > 30:
        near = f" Near to it: {', '.join(nearest)};" if nearest else ""
        return InputError(f"unknown {kind} {name!r}.{hint}{near} {len(known)} are known.")
    return InputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


def in_file(file: str, error: Exception) -> InputError:
    """The error for what a user's file raised: the line, and what was said."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = lines[-1] if lines else getattr(error, "lineno", "?")
    return InputError(f"{file}, line {line}: {type(error).__name__}: {' '.join(str(error).split())}")


def check_at_least(low: int, **values: float | int) -> None:
    """Raises InputError for a value below `low`, by its name."""
    for name, value in values.items():
        if not value >= low:
            raise InputError(f"{name} = {value} must be at least {low}.")


def check_inside(low: float | int, high: float | int, *, usual: str, **values: float | int) -> None:
    """Raises InputError for a value outside the open interval (low, high), by its name; `usual` says what is."""
    for name, value in values.items():
        if not low < value < high:
            raise InputError(f"{name} = {value} is not in ({low:g}, {high:g}); {usual}.")


def first_line(error: BaseException) -> str:
    """Its kind and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
