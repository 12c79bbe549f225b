"""A trained model read from its checkpoints."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddpm import remote
from ddpm.config import from_json
from ddpm.data.images import Facts
from ddpm.errors import InputError
from ddpm.objective import Diffusion, diffusion
from ddpm.training import checkpoint


class Trained(NamedTuple):
    """A model at a step of its training.

    workdir: where it lives.
    config: the experiment it was trained with.
    facts: shape, number and classes of its data.
    step: optimizer updates done, skipped ones included.
    params: EMA parameters, NumPy arrays.
    """

    workdir: pathlib.Path
    config: ConfigDict
    facts: Facts
    step: int
    params: Any

    @property
    def diffusion(self) -> Diffusion:
        """The model as functions of its parameters.

        Raises:
          InputError: the run is that of an autoencoder.
        """
        if self.config.autoencoder.name:
            raise InputError(
                f"{self.workdir} is the run of an autoencoder, which draws no images: --mode eval measures what it makes of "
                "images, ddpm.trained_autoencoder opens it."
            )
        return diffusion(self.config, self.facts.shape, len(self.facts.classes))


def read(workdir: str | pathlib.Path, step: int | None = None) -> Trained:
    """A run at its newest intact checkpoint, or at a step.

    Args:
      workdir: the run's directory.
      step: of the checkpoint; None for the newest.
    Raises:
      InputError: no such run or step, or no intact checkpoint.
    """
    workdir = remote.local(workdir)
    directory, steps = checkpoints(workdir)
    if step is not None and step not in steps:
        raise InputError(f"no checkpoint of step {step} in {directory}; there are {', '.join(map(str, steps))}.")
    step, (record, params) = newest(directory, steps if step is None else [step], _record_and_params)
    facts = Facts.from_json(record["facts"])
    return Trained(workdir, from_json(record["config"]), facts, step, params)


def checkpoints(workdir: str | pathlib.Path) -> tuple[pathlib.PurePath, list[int]]:
    """Where a run's checkpoints are, and their steps.

    Raises:
      InputError: there are none.
    """
    directory = remote.checkpoints(remote.local(workdir))
    steps = checkpoint.steps_in(directory)
    if not steps:
        raise InputError(f"no checkpoint in {directory}: train a run with --workdir {workdir} first.")
    return directory, steps


def newest(directory: pathlib.PurePath, steps: list[int], read: Callable) -> tuple[int, Any]:
    """The newest of some checkpoints that is intact: its step, and what is read of it."""
    for step in reversed(steps):
        try:
            return step, read(directory, step)
        except checkpoint.Broken as error:
            logging.warning("checkpoint %d is broken (%s)", step, error)
    raise InputError(f"no checkpoint in {directory} of step {', '.join(map(str, steps))} is intact: give another step.")


def _record_and_params(directory: pathlib.PurePath, step: int) -> tuple[dict, Any]:
    return checkpoint.read_record(directory, step), checkpoint.read_ema_params(directory, step)
