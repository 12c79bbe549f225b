"""What training needs of the memory of each device, and whether it is there."""

import math
from typing import Any

import jax
import psutil

from ddpm.errors import InputError
from ddpm.training.state import State

REMEDY = (
    "take a smaller training.batch_size and a larger optimizer.accumulate, model.unet.remat = True, or split the state over "
    "devices with mesh.fsdp."
)


def needs(state: State, given: Any, activations: int) -> dict[str, int]:
    """Bytes on each device, by what they are of.

    Args:
      state, given: shapes, dtypes and shardings of the state and of what a step is given.
      activations: bytes the compiled step takes besides.
    """
    optimizer = (state.opt_state, state.batch, state.skipped, state.history)
    parts = {"parameters": state.params, "EMA": state.ema_params, "optimizer": optimizer, "data": given}
    return {name: sum(map(_on_a_device, jax.tree.leaves(tree))) for name, tree in parts.items()} | {
        "activations": activations
    }


def check(needed: dict[str, int], available: int | None) -> str:
    """What is needed, in a line.

    Args:
      available: bytes of a device; None where it does not say.
    Raises:
      InputError: there is less than is needed.
    """
    total = sum(needed.values())
    said = ", ".join(f"{name} {_in_words(size)}" for name, size in needed.items())
    of = f" of {_in_words(available)}" if available else ""
    if available and total > available:
        raise InputError(f"training needs {_in_words(total)}{of} on each device ({said}): {REMEDY}")
    return f"{_in_words(total)}{of} on each device: {said}"


def available() -> int | None:
    """Bytes of the memory of a device of this process; of a CPU its share of what the machine has."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return psutil.virtual_memory().total // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit")


def _on_a_device(leaf):
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _in_words(size):
    unit = min(int(math.log(max(size, 1), 1000)), 4)
    return f"{size / 1000**unit:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
