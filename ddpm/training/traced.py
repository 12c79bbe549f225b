"""A step as it was traced, kept on the disk: a command that starts again need not trace it anew."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import psutil
from absl import logging
from jax import export

from ddpm.cache import cache_directory
from ddpm.training.state import State

PACKAGES = ("jax", "jaxlib", "flax", "optax")  # besides this one, whose code makes a step what it is
OURS = pathlib.Path(__file__).parents[1]


def kept(step: Callable, state: State, given: Any, about: dict) -> Callable:
    """(state, given) -> (state, metrics): `step` as it was traced before, by the same code for the same; else it is traced and kept.

    What is kept is what XLA compiles, in the form of jax.export. Nothing is where code changed while this process ran. It is `step`
    itself in several processes, which have to compile the same; where jax.export does not take it; and unless DDPM_TRACED=1 is in
    the environment, as the command sets it: in a notebook any function may have been replaced by another, which no file tells.

    Args:
      state, given: shapes, dtypes and shardings.
      about: all else that makes the step what it is, such as the configuration; goes into JSON.
    """
    if os.environ.get("DDPM_TRACED") != "1" or jax.process_count() > 1:
        return step
    leaves, tree = jax.tree.flatten(state)
    rows, form = jax.tree.flatten(given)

    def flat(leaves, rows):
        state, metrics = step(jax.tree.unflatten(tree, leaves), jax.tree.unflatten(form, rows))
        return jax.tree.leaves(state), metrics

    said = [about, str(tree), str(form), [str(leaf) for leaf in leaves + rows], *_surroundings()]
    file = _place(said)
    exported = file and _read(file)
    if not exported:
        try:
            exported = export.export(jax.jit(flat))(leaves, rows)
            if file:
                _write(file, exported.serialize())
        except (ValueError, NotImplementedError) as error:
            logging.info("the step is traced at each start: %s", error)
            return step

    def again(state, given):
        leaves, metrics = exported.call(jax.tree.leaves(state), jax.tree.leaves(given))
        return jax.tree.unflatten(tree, leaves), metrics

    return again


def _place(said):
    """The file that is kept of a step; None where the code is not that which was loaded."""
    roots = [OURS, *(pathlib.Path(sys.modules[name].__file__).parent for name in PACKAGES)]
    try:
        files = [str(file) for root in roots for file in root.rglob("*.py")]
        code = sorted((file, (about := os.stat(file)).st_size, about.st_mtime_ns) for file in files)
    except OSError:  # one that was just removed
        return None
    if max(time for _, _, time in code) > psutil.Process().create_time() * 1e9:
        return None
    return cache_directory("traced") / hashlib.sha256(json.dumps([said, code]).encode()).hexdigest()


def _surroundings():
    """Versions of what is no Python, devices, and what JAX and this package are told from outside."""
    yield [platform.python_version(), np.__version__, *(sys.modules[name].__version__ for name in PACKAGES)]
    yield [str(device) + device.device_kind for device in jax.devices()]
    yield {name: str(value) for name, value in jax.config.values.items()}
    yield {name: value for name, value in os.environ.items() if name.startswith("DDPM_")}


def _read(file):
    try:
        digest, content = (whole := file.read_bytes())[:32], whole[32:]
    except OSError:
        return None
    if hashlib.sha256(content).digest() != digest:
        logging.warning("%s is broken: the step is traced anew", file)
        return None
    return export.deserialize(bytearray(content))


def _write(file, content):
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(content).digest() + content)
        part.replace(file)
    except OSError as error:  # a full disk is no reason to end a run that does not need this
        logging.warning("%s: %s; the step is traced at each start", file, error.strerror)
        with contextlib.suppress(OSError):
            part.unlink()
