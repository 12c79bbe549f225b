"""What one sees while training: a bar on a terminal, a line a log interval elsewhere."""

import sys
import time

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """A context that shows the step, loss, images per second and time left.

    Args:
      step, num_steps: where the run starts and ends.
    """

    def __init__(self, step: int, num_steps: int):
        self._first, self._num_steps, self._start = step, num_steps, time.monotonic()
        self._told = False
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("train", total=num_steps, completed=step, figures="")

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception):
        self._bar.stop()

    def __call__(self, step: int, figures: dict[str, float | int]) -> None:
        """Shows the step, and its figures where there are new ones."""
        self._bar.update(self._task, completed=step)
        if not self._told:
            since = time.time() - psutil.Process().create_time()
            print(f"start  step {step} was done {since:.1f} s after the command began", flush=True)
            self._told = True
        if not figures:
            return
        text = f"loss {figures.get('loss', float('nan')):.4f}"
        if "images_per_second" in figures:
            text += f"  {figures['images_per_second']:.0f} img/s"
        if figures["skipped"]:
            text += f"  {figures['skipped']} skipped"
        self._bar.update(self._task, figures=text)
        if self._bar.disable:
            left = (time.monotonic() - self._start) / (step - self._first) * (self._num_steps - step)
            print(f"step {step}/{self._num_steps}  {text}  eta {left:.0f} s", file=sys.stderr, flush=True)
