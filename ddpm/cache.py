"""Where this machine keeps what can be made again: compiled programs, traced steps, decoded images, features of data sets, classifiers."""

import contextlib
import fcntl
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging


def cache_directory(name: str) -> pathlib.Path:
    """The directory `name` under $XDG_CACHE_HOME/ddpm (~/.cache/ddpm); it need not be there yet.

    For a user without a home, as in a container, it is in the directory of temporary files.
    """
    try:
        root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        root = pathlib.Path(tempfile.gettempdir())
    return root / "ddpm" / name


@contextlib.contextmanager
def alone(file: pathlib.Path) -> Iterator[None]:
    """One process at a time makes a file that is kept; the others of the machine wait, and find it there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep(file: pathlib.Path, arrays: Sequence) -> None:
    """Writes arrays to a file ending in .npz, which is whole or not there; `alone`."""
    part = file.with_name(f".{file.name}")  # what a killed process left of one is written over
    np.savez(part, *arrays)
    part.replace(file)


def use(file: pathlib.Path) -> None:
    """Tells `forget` that a file was of use today."""
    with contextlib.suppress(OSError):  # of another user, or gone
        os.utime(file)


def forget(directory: pathlib.Path, names: str = "*", days: int = 30) -> None:
    """Removes the files of such names that were neither written nor of use for so many days; locks stay, as another may wait at one."""
    for file in directory.glob(names):
        with contextlib.suppress(OSError):  # another process removes it too, or it is another user's
            if file.suffix != ".lock" and time.time() - file.stat().st_mtime > days * 24 * 60 * 60:
                file.unlink()


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
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of many kinds: zipfile's, zlib's, NumPy's, tokenize's
            logging.warning("%s is broken (%s): what it held is made anew", file, error)
            return None
