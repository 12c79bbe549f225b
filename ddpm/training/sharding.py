"""Placement over devices: one mesh axis, the batch split over it, the state a copy on each."""

import os
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddpm.errors import InputError, check_at_least


def split_cpu(devices: int) -> None:
    """Makes a CPU so many devices, before anything is computed; JAX_NUM_CPU_DEVICES in the environment goes first."""
    check_at_least(1, **{"training.cpu_devices": devices})
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", devices)


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices, or of those given, with the one axis 'data'."""
    devices = devices or jax.devices()
    # Auto axes: the compiler places what is in between; Explicit, the default, refuses parameters split over 'data'.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def split(mesh: Mesh) -> NamedSharding:
    """The first dimension split over all devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def check_divisible(name: str, size: int, mesh: Mesh) -> None:
    """Raises InputError when `size` examples do not split evenly over the devices."""
    if size % mesh.size:
        raise InputError(
            f"{name} = {size} does not split evenly over {mesh.size} devices: use a multiple of {mesh.size}."
        )
