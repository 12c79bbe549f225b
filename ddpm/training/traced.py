"""A step as it was traced, kept on the disk: a command that starts again need not wait until it is traced anew."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import export

from ddpm.cache import cache_directory, forget, use
from ddpm.errors import MachineError
from ddpm.training.state import State

INSTALLED = {"site-packages", "dist-packages"}  # folders of what pip and Debian install
PACKAGES = ("ddpm", "jax", "jaxlib", "flax", "optax")  # whose code makes a step what it is


def kept(step: Callable, state: State, given: Any, about: dict) -> tuple[Callable, Callable[[], None]]:
    """(`step` as it was traced before by the same code for the same; what traces it anew and raises if it has become another).

    A step that was not kept is traced now, and kept. Files tell when code has changed, but not all that code may do or read: so what
    was kept has to be held against a new trace before anything of it is saved. What is kept is what XLA compiles, in the form of
    jax.export; what is not kept has the same form, as another has other bits. It is `step` itself in several processes, which have to
    compile the same, and where jax.export does not take it. Steps are kept where DDPM_TRACED is in the environment and not 0, as the command
    sets it.

    Args:
      step: (state, given) -> (state, metrics).
      state, given: shapes, dtypes and shardings.
      about: all else that makes the step what it is, such as the configuration; goes into JSON.
    """
    if jax.process_count() > 1:
        return step, _nothing
    leaves, tree = jax.tree.flatten(state)
    rows, form = jax.tree.flatten(given)

    def trace():
        def flat(leaves, rows):
            state, metrics = step(jax.tree.unflatten(tree, leaves), jax.tree.unflatten(form, rows))
            return jax.tree.leaves(state), metrics

        return export.export(jax.jit(flat))(leaves, rows)

    said = [about, str(tree), str(form), [str(leaf) for leaf in leaves + rows], *_surroundings(), _code()]
    file = cache_directory("traced") / hashlib.sha256(json.dumps(said).encode()).hexdigest()
    keeps = os.environ.get("DDPM_TRACED", "0") != "0"
    found = _read(file) if keeps else None
    try:
        exported = found or trace()
    except (ValueError, NotImplementedError) as error:  # what jax.export refuses; the step's own error it raises again
        logging.warning("the step is traced at each start: %s", error)
        return step, _nothing
    if keeps and not found:
        _write(file, exported)

    def again(state, given):
        leaves, metrics = exported.call(jax.tree.leaves(state), jax.tree.leaves(given))
        return jax.tree.unflatten(tree, leaves), metrics

    def check():
        then, now = (jax.jit(each.call).lower(leaves, rows).as_text() for each in (exported, trace()))
        if then != now:
            file.unlink(missing_ok=True)
            raise MachineError(
                f"{file} held a step that is not the one of this code and configuration any more, and is removed: nothing of it "
                "was saved. Run the same command again; DDPM_TRACED=0 in the environment keeps no step."
            )

    return again, check if found else _nothing


def _nothing():
    """What was traced now needs no check."""


def _surroundings():
    """Versions, devices, and what JAX and this package are told from outside."""
    yield [platform.python_version(), *(module.__version__ for module in (jax, np))]
    yield [str(device) + device.device_kind for device in jax.devices()]
    yield {name: str(value) for name, value in jax.config.values.items()}
    yield {name: value for name, value in os.environ.items() if name.startswith("DDPM_")}


def _code():
    """Size and time of each file of the packages, and of the user's modules, which a configuration may name."""
    roots = [pathlib.Path(sys.modules[name].__file__).parent for name in PACKAGES]
    files = {str(file) for root in roots for file in root.rglob("*.py")}
    python = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith(python) and not INSTALLED & {*pathlib.Path(file).parts}:
            files.add(file)
    found = []
    for file in sorted(files):
        with contextlib.suppress(OSError):  # one that was just removed
            found.append((file, (about := os.stat(file)).st_size, about.st_mtime_ns))
    return found


def _read(file):
    try:
        digest, content = (whole := file.read_bytes())[:32], whole[32:]
    except OSError:
        return None
    if hashlib.sha256(content).digest() != digest:
        logging.warning("%s is broken: the step is traced anew", file)
        return None
    use(file)
    return export.deserialize(bytearray(content))


def _write(file, exported):
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        content = exported.serialize()
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(content).digest() + content)
        part.replace(file)
        forget(file.parent)
    except (OSError, ImportError) as error:  # a full disk, or no flatbuffers, is no reason to end a run
        logging.warning("%s is not kept, and the step traced at each start: %s", file, error)
        with contextlib.suppress(OSError):
            part.unlink()
