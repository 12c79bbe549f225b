"""Where this machine keeps what can be made again: compiled programs, decoded images, features of data sets, classifiers."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging


def cache_directory(name: str) -> pathlib.Path:
    """The directory `name` under $XDG_CACHE_HOME/ddpm (~/.cache/ddpm); it need not be there yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ddpm" / name


def keep(file: pathlib.Path, arrays: Sequence) -> None:
    """Writes arrays to a file ending in .npz, which is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        np.savez(part, *arrays)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def kept(file: pathlib.Path) -> list[np.ndarray] | None:
    """What `keep` wrote to a file; None where it is not there or broken.

    Raises:
      OSError: what the disk or its rights refuse.
    """
    try:
        content = file.open("rb")
    except FileNotFoundError:
        return None
    with content:
        try:
            with np.load(content) as arrays:
                return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
        except OSError:
            raise
        except Exception as error:  # of many kinds: zipfile's, zlib's, NumPy's, tokenize's
            logging.warning("%s is broken (%s): what it held is made anew", file, error)
            return None
