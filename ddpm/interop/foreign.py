"""Other people's networks in our words, and their weights by their names as parameters by ours."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm.data.images import Scale
from ddpm.errors import InputError

Path = tuple[str, ...]
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


class Foreign(NamedTuple):
    """A network of other people.

    file: that its weights are in.
    model: our backbone; `options`: of it.
    shape: (height, width, channels) of what it denoises.
    learned_variance: whether it says one.
    arrays: its weights in float32, by its names, in PyTorch's layouts.
    name_of: path of a module of ours -> its name there.
    labels: rows of its embedding of classes, or classes that it says; 0 for none.
    has_null: the last of them stands for none; None where nothing says whether it does.
    text: features of the tokens it is told; 0 for none.
    settings: what is known of how it was trained and is to be sampled, by dotted keys of a configuration.
    scale: of the latents that it denoises, where the folder says it.
    differs: what is said of its sampling that has no counterpart here, in lines.
    """

    file: pathlib.Path
    model: str
    options: dict[str, Any]
    shape: tuple[int, int, int]
    learned_variance: bool
    arrays: dict[str, np.ndarray]
    name_of: Callable[[Path], str]
    labels: int = 0
    has_null: bool | None = None
    text: int = 0
    settings: dict[str, Any] = {}  # noqa: RUF012
    scale: Scale | None = None
    differs: tuple[str, ...] = ()


def params_of(foreign: Foreign, template: Any) -> dict:
    """Its weights as parameters.

    Args:
      template: our parameters' shapes, of jax.eval_shape.
    Raises:
      InputError: an array is missing, of another shape, or not used.
    """
    arrays = dict(foreign.arrays)

    def carried(path, wanted):
        path = tuple(key.key for key in path)
        name = _name(foreign.name_of, path)
        if name not in arrays:
            raise InputError(
                f"{foreign.file} holds no {name!r}, which this network needs for {'/'.join(path)}: "
                "it is not whole, or its configuration is of another network."
            )
        made = _to_ours(arrays.pop(name), path[-1], len(wanted.shape))
        if made.shape != wanted.shape:
            raise InputError(
                f"{foreign.file}: {name!r} is of shape {foreign.arrays[name].shape}, which makes {'/'.join(path)} "
                f"{made.shape}, not {wanted.shape}: its configuration is of another network."
            )
        return made

    params = jax.tree_util.tree_map_with_path(carried, template)
    if arrays:
        some = ", ".join(map(repr, sorted(arrays)[:3])) + (", ..." if len(arrays) > 3 else "")
        raise InputError(
            f"{foreign.file} holds {len(arrays)} array(s) that the network has no use for, such as {some}: "
            "its configuration is of another network."
        )
    return params


def arrays_of(params: dict, name_of: Callable[[Path], str]) -> dict[str, np.ndarray]:
    """The way back: arrays by their names, in PyTorch's layouts."""
    arrays = {}
    for keys, array in jax.tree_util.tree_leaves_with_path(params):
        path = tuple(key.key for key in keys)
        arrays[_name(name_of, path)] = np.ascontiguousarray(_to_theirs(np.asarray(array), path[-1]))
    return arrays


def halves_swapped(kernel: np.ndarray) -> np.ndarray:
    """A Linear [out, in] that is told cosines and then sines, as one that is told sines and then cosines; and back.

    Raises:
      InputError: it is told an odd number of them.
    """
    if kernel.ndim != 2 or kernel.shape[1] % 2:
        raise InputError(
            f"the first layer of the time is of shape {kernel.shape}: it is told as many sines as cosines."
        )
    return np.concatenate(np.split(kernel, 2, axis=1)[::-1], axis=1)


def _name(name_of, path):
    return f"{name_of(path[:-1])}.{LEAVES[path[-1]]}" if path[-1] in LEAVES else name_of(path)


def _to_ours(array, leaf, ndim):
    """Conv2d [out, in, height, width], Conv1d [out, in, 1] or Linear [out, in] as a kernel [(height, width,) in, out]."""
    if leaf != "kernel":
        return array
    if array.ndim == 4 and ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim > 2 and array.shape[2:] == (1,) * (array.ndim - 2):
        array = array.reshape(array.shape[:2])
    return array.T[None, None] if ndim == 4 and array.ndim == 2 else array.T


def _to_theirs(array, leaf):
    if leaf != "kernel":
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
