"""Figures and pictures of training to Weights & Biases, for those who keep their runs there."""

import pathlib

import numpy as np

from ddpm.errors import InputError

FILE = "wandb_run"  # in the workdir: the id of its run


class WandbWriter:
    """Writes figures by step to a run of Weights & Biases; a run that goes on in its workdir goes on there too.

    Of steps that an interrupted run already sent, the first values stay.
    WANDB_MODE=offline keeps everything in workdir/wandb, until `wandb sync`.

    Args:
      workdir: the run's directory; it holds the id, and wandb's files.
      project: where the run belongs to.
      config: the experiment, as JSON.
    Raises:
      InputError: wandb is not installed, or cannot start.
    """

    def __init__(self, workdir: pathlib.Path, project: str, config: dict):
        try:
            import wandb  # a second
        except ImportError as error:
            raise InputError(
                f"training.wandb = {project!r} needs the package wandb, which is not installed: pip install wandb; "
                "or leave it empty."
            ) from error
        known = workdir / FILE
        try:
            self._run = wandb.init(
                project=project,
                name=workdir.name,
                dir=str(workdir),
                id=known.read_text().strip() if known.exists() else None,
                resume="allow",
                config=config,
                settings=wandb.Settings(console="off"),  # the terminal is the progress bar's
            )
        except wandb.Error as error:
            raise InputError(
                f"training.wandb = {project!r}: {' '.join(str(error).split())} Or set WANDB_MODE=offline, "
                "or leave training.wandb empty."
            ) from error
        known.write_text(self._run.id + "\n")
        self._image = wandb.Image

    def scalars(self, step: int, figures: dict[str, float | int]) -> None:
        """Writes the figures of a step."""
        self._run.log(figures, step=step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Shows uint8 pixels [height, width, channels]."""
        self._run.log({name: self._image(pixels)}, step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()
