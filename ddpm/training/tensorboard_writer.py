"""Figures and pictures of training to TensorBoard, each on disk when its call returns."""

import functools
import pathlib
import time

import numpy as np


class TensorboardWriter:
    """Writes figures by step to files of TensorBoard.

    Not tensorboardX's SummaryWriter: its thread dies on a full disk, and then its calls never return.

    Args:
      directory: where TensorBoard is to look.
      step: the step the run goes on from; what an interrupted run wrote beyond it is no longer shown.
    """

    def __init__(self, directory: pathlib.Path, step: int):
        self._directory, self._step = directory, step

    @functools.cached_property
    def _events(self):
        from tensorboardX.event_file_writer import EventsWriter  # seconds where PyTorch is installed

        self._directory.mkdir(parents=True, exist_ok=True)
        return EventsWriter(str(self._directory / "events"))

    def scalars(self, step: int, figures: dict[str, float | int]) -> None:
        """Writes the figures of a step."""
        from tensorboardX.summary import scalar

        for name, value in figures.items():
            self._write(step, summary=scalar(name, value))

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Shows uint8 pixels [height, width, channels]."""
        from tensorboardX.summary import image

        self._write(step, summary=image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Closes the file, if there is one."""
        if "_events" in self.__dict__:
            self._events.close()

    def _write(self, step, **what):
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if "_events" not in self.__dict__:
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=self._step + 1, wall_time=time.time(), session_log=start))
        self._events.write_event(Event(step=step, wall_time=time.time(), **what))
        self._events.flush()
