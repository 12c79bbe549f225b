"""Where this machine keeps what can be made again: compiled programs, features of data sets, classifiers."""

import os
import pathlib


def cache_directory(name: str) -> pathlib.Path:
    """The directory `name` under $XDG_CACHE_HOME/ddpm (~/.cache/ddpm); it need not be there yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ddpm" / name
