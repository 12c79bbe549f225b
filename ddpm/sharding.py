"""Placement over devices and processes: meshes, shardings by rule, arrays onto them and back."""

import math
import os
import pathlib
import socket
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ddpm.errors import InputError, check_at_least

SMALL = 2**12  # elements of an array that is copied to all devices: to split it saves less than its messages cost


def split_cpu(devices: int) -> None:
    """Makes a CPU so many devices, before anything is computed; JAX_NUM_CPU_DEVICES in the environment goes first."""
    check_at_least(1, **{"training.cpu_devices": devices})
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", devices)


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices of this process, or of those given, with the one axis 'data'."""
    devices = devices or jax.local_devices()
    # Auto axes: the compiler places what is in between; Explicit, the default, refuses parameters split over 'data'.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def training_mesh(fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of all devices of all processes, with the axes 'data', 'fsdp' and 'tensor'; 'data' has what is left.

    Args:
      fsdp: devices that share one copy of the state, each with a batch of its own.
      tensor: devices that share the features of one batch.
    Raises:
      InputError: they do not divide the devices.
    """
    check_at_least(1, **{"mesh.fsdp": fsdp, "mesh.tensor": tensor})
    devices = jax.device_count()
    if devices % (fsdp * tensor):
        raise InputError(
            f"mesh.fsdp = {fsdp} times mesh.tensor = {tensor} does not divide the {devices} devices: use numbers that do."
        )
    sizes = (devices // (fsdp * tensor), fsdp, tensor)
    return jax.make_mesh(sizes, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def split(mesh: Mesh) -> NamedSharding:
    """The first dimension split over all devices that see other examples: those of 'data' and of 'fsdp'."""
    return NamedSharding(mesh, PartitionSpec(tuple(name for name in mesh.axis_names if name != "tensor")))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def of_state(mesh: Mesh | AbstractMesh, shape: tuple[int, ...]) -> NamedSharding:
    """Where an array of the state lives: by its shape alone, so that moments and averages lie as their parameters.

    The last dimension, output features, is split over 'tensor'; the largest of the others over 'fsdp'; each where
    it divides, and small arrays not at all.
    """
    axes = [None] * len(shape)
    sizes = dict(mesh.shape)
    if math.prod(shape) >= SMALL:
        if len(shape) > 1 and sizes.get("tensor", 1) > 1 and shape[-1] % sizes["tensor"] == 0:
            axes[-1] = "tensor"
        parts = sizes.get("fsdp", 1)
        able = [i for i, size in enumerate(shape) if axes[i] is None and size % parts == 0]
        if parts > 1 and able:
            axes[max(able, key=lambda i: shape[i])] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*axes))


def check_divisible(name: str, size: int, mesh: Mesh) -> None:
    """Raises InputError when `size` examples do not split evenly over the devices that see other examples."""
    parts = mesh.size // dict(mesh.shape).get("tensor", 1)
    if size % parts:
        raise InputError(f"{name} = {size} does not split evenly over {parts} devices: use a multiple of {parts}.")


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of the host onto devices; every process has them whole."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), tree)


def to_host(tree: Any) -> Any:
    """Whole NumPy arrays on every process, wherever their parts are; all processes have to ask together."""
    return jax.tree.map(_whole, tree)


def _whole(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return jax.device_get(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    return multihost_utils.process_allgather(leaf, tiled=True)


def here(tree: Any) -> Any:
    """A copy on each device of this process, wherever the parts are; all processes have to ask together."""
    return jax.device_put(tree if jax.process_count() == 1 else to_host(tree), replicated(data_mesh()))


def is_first() -> bool:
    """Whether this is the process that writes, and says, what all have come to."""
    return jax.process_index() == 0


def agreed(said: bool) -> bool:
    """Whether all processes say so; all have to ask together."""
    return said if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.array(said))))


def check_shared(directory: pathlib.Path) -> None:
    """Raises InputError where processes see different directories under one name; all have to ask together."""
    if jax.process_count() == 1:
        return
    mark = multihost_utils.broadcast_one_to_all(np.array(time.time_ns() % 2**31, np.int32))
    file = directory / f".seen_by_all.{mark}"
    if is_first():
        file.touch()
    wait_for_all(f"{file} is there")
    seen = file.exists()
    if not agreed(seen):
        host = socket.gethostname()
        raise InputError(
            f"{directory} of process {jax.process_index()} ({host}) {'is' if seen else 'is not'} that of the first: give a --workdir "
            "on a disk that all processes share."
        )
    if is_first():
        file.unlink()


def wait_for_all(name: str) -> None:
    """Until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
