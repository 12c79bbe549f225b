"""Checkpoints: written asynchronously by Orbax, each leaf with a checksum, read back only when intact.

Orbax restores a flipped byte without a word and never falls back to an older step; both are done here.
"""

import dataclasses
import errno
import importlib.metadata
import logging
import math
import pathlib
import platform
import shutil
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ddpm import remote, sharding
from ddpm.errors import InputError, MachineError, check_at_least, first_line
from ddpm.training import quiet_orbax, steady_orbax  # noqa: F401
from ddpm.training.state import State
from ddpm.training.store_errors import is_full, is_of_the_machine

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Broken(Exception):
    """A checkpoint that cannot be read, or that reads back other than it was written."""


class Checkpoints:
    """The checkpoints of a run, in workdir/checkpoints/<step>: the state, and a JSON record beside it.

    Args:
      workdir: the run's directory.
      keep: how many of the newest to keep.
      keep_every: keep also each checkpoint whose step is a multiple of this; 0 for none.
      best: tells a step to keep also, if any.
    """

    def __init__(
        self, workdir: pathlib.Path, *, keep: int, keep_every: int, best: Callable[[], int | None] = lambda: None
    ):
        check_at_least(1, **{"training.keep": keep})
        check_at_least(0, **{"training.keep_every": keep_every})
        self.directory = remote.checkpoints(workdir)
        policies = [preservation_policy.LatestN(keep), _Step(best)]
        if keep_every:
            policies.append(preservation_policy.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(policies), cleanup_tmp_directories=True
            ),
        )

    def save(self, step: int, state: State, record: dict) -> None:
        """Starts to write the checkpoint of `step`, unless it is there; training goes on meanwhile.

        Args:
          record: JSON of the run (config, data facts); versions and checksums are added.
        Raises:
          InputError: this or the checkpoint before could not be written, as on a full disk, or there is no sense in it.
        """
        if step in self._manager.all_steps():
            return
        record = record | {"step": step, "versions": versions(), "leaves": self._finite_sums(step, state)}
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(record))
        try:
            self._manager.wait_until_finished()
            free = shutil.disk_usage(self.directory).free if isinstance(self.directory, pathlib.Path) else math.inf
            if not sharding.agreed(free >= sum(leaf.nbytes for leaf in jax.tree.leaves(state))):
                raise OSError(errno.ENOSPC, "No space left on device")  # before Orbax leaves half of it there
            self._manager.save(step, args=args, force=True)
        except Exception as error:
            raise self._write_error(error) from error

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises:
          InputError: a checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._write_error(error) from error

    def close(self) -> None:
        """Waits for what is being written and ends Orbax's threads; what is not told by `finish` is warned of."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # another one may be on its way, which this must not hide
            logging.warning("%s", self._write_error(error))
        self._manager.close()

    def restore(self, abstract: State) -> tuple[int, State] | None:
        """The newest intact checkpoint as (step, state), None if there is none at all; broken ones are set aside.

        Args:
          abstract: the state's shapes, dtypes and shardings; other devices than those that wrote it are fine.
        Raises:
          InputError: every checkpoint is broken, or the state has another structure than this model's.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = read_state(self.directory, step, abstract)
            except Broken as error:
                if sharding.is_first():
                    aside = _set_aside(self.directory, step)
                    logging.warning("checkpoint %d is broken (%s); set aside as %s", step, error, aside)
                sharding.wait_for_all(f"checkpoint {step} is set aside")
                self._manager.reload()
            else:
                return step, restored
        aside = sorted((self.directory.parent / "broken_checkpoints").glob("*"))
        if aside and not steps:
            raise InputError(
                f"{self.directory} is empty, but {aside[0].parent} holds broken checkpoints of this run. "
                "Mend and move one back, or remove that folder to start anew."
            )
        if steps:
            raise InputError(f"none of the checkpoints {steps} in {self.directory} is intact; they were set aside.")
        return None

    def _finite_sums(self, step: int, state: State) -> dict[str, dict]:
        # A step that is not finite is skipped, so only memory that went bad brings about parameters that are not.
        sums, bad = {}, []
        for path, array in _arrays(state):
            sums[path] = _signature(array) | {"crc32": zlib.crc32(array.tobytes())}
            if path.startswith(("params/", "ema_params/")) and not np.isfinite(array).all():
                bad.append(path)
        if not sharding.agreed(not bad):
            where = f"here: {', '.join(bad[:3])}" if bad else "on another process"
            raise MachineError(
                f"at step {step} parameters are not finite {where}; no checkpoint was written, {self._kept()}. Look at the "
                "memory of the devices and run the same command: it goes on from there."
            )
        return sums

    def _write_error(self, error: Exception) -> MachineError:
        reason, remedy = ("the disk is full", "Free some space") if is_full(error) else (first_line(error), "Mend that")
        return MachineError(
            f"the newest checkpoint could not be written to {self.directory} ({reason}); {self._kept()}. "
            f"{remedy} and run the same command: it goes on from there."
        )

    def _kept(self) -> str:
        intact = [step for step in steps_in(self.directory) if _is_written(self.directory, step)]
        return f"checkpoint {max(intact)} is kept" if intact else "there is no earlier one"


@dataclasses.dataclass
class _Step(preservation_policy.PreservationPolicy):
    chosen: Callable[[], int | None]

    def should_preserve(self, checkpoints, *, context):
        step = self.chosen()
        return [info.step == step for info in checkpoints]


def steps_in(directory: pathlib.PurePath) -> list[int]:
    """Steps of the checkpoints in a directory, rising; half-written ones are not among them."""
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdigit() and ocp.utils.is_checkpoint_finalized(path))


def read_record(directory: pathlib.PurePath, step: int) -> dict:
    """The JSON record of a checkpoint.

    Raises:
      Broken: it cannot be read.
    """
    return _read(directory, step, "record", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())


def read_state(directory: pathlib.PurePath, step: int, abstract: State) -> State:
    """The state of a checkpoint, each leaf placed as `abstract` says and checked against its checksum.

    Raises:
      Broken: it cannot be read, or a checksum differs.
      InputError: its leaves are others than `abstract`'s.
    """
    problem = None
    try:
        leaves = read_record(directory, step)["leaves"]
        _check_structure(leaves, abstract, step)
        args = ocp.args.PyTreeRestore(item=abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract))
        state = _read(directory, step, "state", ocp.PyTreeCheckpointHandler(), args)
    except Broken as error:
        problem = error
    if not sharding.agreed(problem is None):  # each process reads its own parts, and may be the only one that cannot
        raise problem or Broken("another process cannot read it")
    _check_sums(leaves, checksums(state))
    return state


def read_ema_params(directory: pathlib.PurePath, step: int) -> Any:
    """The EMA parameters of a checkpoint as NumPy arrays, without knowing model, optimizer or devices.

    Raises:
      Broken: they cannot be read, or a checksum differs.
    """
    handler = ocp.PyTreeCheckpointHandler()
    try:
        tree = handler.metadata(directory / str(step) / "state").tree
    except Exception as error:
        raise Broken(first_line(error)) from error
    item = {"ema_params": tree["ema_params"]}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    args = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
    restored = _read(directory, step, "state", handler, args)
    _check_sums(read_record(directory, step)["leaves"], checksums(restored))
    return restored["ema_params"]


def checksums(tree: Any) -> dict[str, dict]:
    """CRC-32, shape and dtype of each leaf, by its path such as 'params/conv_in/kernel'."""
    return {path: _signature(array) | {"crc32": zlib.crc32(array.tobytes())} for path, array in _arrays(tree)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's numbers depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def _read(directory, step, item, handler, args):
    try:
        return handler.restore(directory / str(step) / item, args=args)  # a Checkpointer would wait for all processes
    except Exception as error:
        if is_of_the_machine(error):
            raise MachineError(
                f"{directory / str(step)} cannot be read ({first_line(error)}). Mend that and run the same command."
            ) from error
        raise Broken(f"{item}: {first_line(error)}") from error


def _arrays(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Each leaf on the host, one at a time, by its path."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield _path(path), np.asarray(sharding.to_host(leaf))


def _path(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _signature(leaf) -> dict:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _check_structure(leaves: dict, abstract: State, step: int) -> None:
    flat, _ = jax.tree_util.tree_flatten_with_path(abstract)
    wanted = {_path(path): _signature(leaf) for path, leaf in flat}
    for path in sorted(wanted.keys() | leaves.keys()):
        stored = {key: leaves[path][key] for key in ("shape", "dtype")} if path in leaves else "nothing"
        if stored != wanted.get(path, "nothing"):
            raise InputError(
                f"checkpoint {step} holds {stored} at {path}, this experiment {wanted.get(path, 'nothing')}: "
                "they are different models or optimizers. Use the run's own settings, or another --workdir."
            )


def _check_sums(written: dict, read: dict) -> None:
    for path, leaf in read.items():
        if leaf != written.get(path):
            raise Broken(f"{path} differs from its checksum")


def _set_aside(directory: pathlib.PurePath, step: int) -> pathlib.PurePath:
    aside = directory.parent / "broken_checkpoints"
    target = next(aside / f"{step}.{n}" for n in range(1000) if not (aside / f"{step}.{n}").exists())
    remote.move(directory / str(step), target)
    return target


def _is_written(directory: pathlib.PurePath, step: int) -> bool:
    try:
        return bool(read_record(directory, step))
    except Broken:
        return False
