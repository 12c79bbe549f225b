"""A run in an object store, such as gs://bucket/run: its checkpoints are written there, all else to a copy of this process."""

import contextlib
import logging
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

import jax
import psutil

from ddpm import sharding
from ddpm.cache import cache_directory
from ddpm.errors import InputError, MachineError, first_line

SCHEMES = {"gs": "gcsfs"}  # and the package that knows it
APART = ("checkpoints", "broken_checkpoints")  # what is never copied
_PULLED: set[pathlib.Path] = set()  # copies that this process has made like their stores
_PUSHED: dict[pathlib.Path, tuple[int, int]] = {}  # file -> (bytes, time) of what is in the store


def local(workdir: str | pathlib.Path) -> pathlib.Path:
    """A directory itself; of an address this process's copy, made like the store's: what was not pushed is lost.

    Raises:
      InputError: an address of no known store, or one that does not answer.
    """
    text = str(workdir)
    scheme, _, rest = text.rpartition("://")
    if not scheme:
        return pathlib.Path(workdir)
    if scheme not in SCHEMES or not rest.strip("/"):
        raise InputError(
            f"{text} is no address of a run, such as gs://bucket/run; of other stores give a directory where it is mounted."
        )
    _forget_the_dead()
    copy = _copies() / scheme / rest.strip("/")
    _pull(copy)
    return copy


def address(path: pathlib.Path) -> str | None:
    """What in an object store a file or directory of this machine is the copy of; None if it is none."""
    if not path.absolute().is_relative_to(_copies()):
        return None
    scheme, *rest = path.absolute().relative_to(_copies()).parts
    return f"{scheme}://{'/'.join(rest)}"


def checkpoints(workdir: str | pathlib.Path) -> pathlib.PurePath:
    """Where the checkpoints of a run are: a pathlib.Path, or etils' path in an object store."""
    workdir = pathlib.Path(workdir).absolute()
    there = address(workdir)
    if there is None:
        return workdir / "checkpoints"
    from etils import epath

    _store(there)
    return epath.Path(there) / "checkpoints"


def seen_by_all(workdir: pathlib.Path) -> bool:
    """Whether there are several processes, and what one writes there the others see."""
    return jax.process_count() > 1 and address(workdir) is None


@contextlib.contextmanager
def pushing() -> Iterator[None]:
    """Brings what has changed in all copies to their stores after a block, also after an error, which goes first."""
    try:
        yield
    except BaseException:
        try:
            _push_all()
        except InputError as error:
            logging.warning("%s", error)
        raise
    _push_all()


def _push_all():
    for copy in _PULLED:
        push(copy)


def move(directory: pathlib.PurePath, target: pathlib.PurePath) -> None:
    """Renames a directory, into one that need not be there."""
    if isinstance(directory, pathlib.Path):
        target.parent.mkdir(exist_ok=True)
        directory.rename(target)
    else:
        _store(str(directory)).mv(str(directory), str(target), recursive=True)


def push(workdir: pathlib.Path) -> None:
    """Brings what has changed in a copy to its store, if the copy was made now; any other directory is left alone.

    Raises:
      InputError: the store does not take it.
    """
    workdir = workdir.absolute()
    if not sharding.is_first() or not any(workdir.is_relative_to(copy) for copy in _PULLED):
        return
    store = _store(address(workdir))
    there = {path: _stamp(path) for path in workdir.rglob("*") if path.is_file()}
    try:
        for path, stamp in there.items():
            if _PUSHED.get(path) != stamp:
                store.put_file(str(path), address(path))
                _PUSHED[path] = stamp
        for path in [path for path in _PUSHED if path.is_relative_to(workdir) and path not in there]:
            store.rm_file(address(path))
            del _PUSHED[path]
    except Exception as error:
        raise _told(error, address(path), "written; the same command goes on from the newest checkpoint") from error


def _copies():
    return (cache_directory("workdirs") / f"{socket.gethostname()}.{os.getpid()}").absolute()


def _forget_the_dead():
    for copies in _copies().parent.glob(f"{socket.gethostname()}.*"):
        number = copies.name.rpartition(".")[2]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(copies, ignore_errors=True)


def _pull(copy):
    top = address(copy)
    store = _store(top)
    try:
        found = store.find(top)
    except Exception as error:  # of many kinds: no such bucket, no rights, no network
        raise _told(error, top, "read") from error
    names = [name.partition(top.partition("://")[2].rstrip("/") + "/")[2] for name in found]
    wanted = {copy / name for name in names if name and not set(APART) & set(pathlib.Path(name).parts)}
    for path in copy.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    for path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(address(path), str(path))
        _PUSHED[path] = _stamp(path)
    copy.mkdir(parents=True, exist_ok=True)
    _PULLED.add(copy)


def _told(error, place, done):
    return MachineError(f"{place} cannot be {done} ({first_line(error)}).")


def _stamp(path):
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _store(place):
    import fsspec  # with what it imports, half a second

    scheme = place.partition("://")[0]
    # TensorStore writes what etils lists by a filesystem of its own: nothing of that may be remembered.
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    logging.getLogger(SCHEMES[scheme]).setLevel(logging.CRITICAL)  # what fails is raised as well
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise InputError(f"{scheme}:// needs the package {SCHEMES[scheme]}: pip install {SCHEMES[scheme]}.") from error
