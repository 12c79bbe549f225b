"""Figures of training: averaged over a window of steps, then to metrics.jsonl and other writers."""

import json
import logging
import pathlib
from collections.abc import Sequence

import numpy as np


def average(window: list[dict]) -> dict[str, float | int]:
    """Figures of a window of batches; skipped ones count only as skipped.

    `window` holds what the compiled step returned, each value of shape [...] or [batches, ...].
    """
    stacked = {k: np.concatenate([np.atleast_1d(m[k]).reshape(-1, *_item_shape(k)) for m in window]) for k in window[0]}
    finite = stacked["finite"]
    figures = {"skipped": int((~finite).sum())}
    if finite.any():
        plain = [name for name in stacked if not name.startswith("quarter") and name not in ("finite", "skipped")]
        figures |= {name: float(stacked[name][finite].mean()) for name in plain}
    if finite.any() and "quarter_loss" in stacked:
        total, count = (stacked[name][finite].sum(axis=0) for name in ("quarter_loss", "quarter_count"))
        figures |= {f"loss_t_quarter_{i + 1}": float(total[i] / count[i]) for i in range(4) if count[i]}
    return figures


def _item_shape(name: str) -> tuple[int, ...]:
    return (4,) if name.startswith("quarter") else ()


class Metrics:
    """Writes figures by step to workdir/metrics.jsonl, one JSON object a line, and to other writers.

    Args:
      step: the step the run goes on from; what an interrupted run wrote beyond it is dropped.
      also: other writers of figures and pictures, such as a TensorboardWriter.
    """

    def __init__(self, workdir: pathlib.Path, step: int, also: Sequence = ()):
        self._also = also
        self.path = workdir / "metrics.jsonl"
        kept = "".join(json.dumps(row) + "\n" for row in read(workdir) if row["step"] <= step)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(kept)
        fresh.replace(self.path)  # at no moment is there less than a whole file
        self._lines = self.path.open("a")

    def scalars(self, step: int, figures: dict[str, float | int]) -> None:
        """Writes the figures of a step."""
        self._lines.write(json.dumps({"step": step} | figures) + "\n")
        self._lines.flush()
        self.chart(step, figures)

    def chart(self, step: int, figures: dict[str, float | int]) -> None:
        """Shows figures that are kept elsewhere, by the other writers alone."""
        for writer in self._also:
            writer.scalars(step, figures)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Shows uint8 pixels [height, width, channels], by the other writers."""
        for writer in self._also:
            writer.image(step, name, pixels)

    def close(self) -> None:
        """Flushes and closes all; what a full disk does not take is warned of."""
        for writer in (self._lines, *self._also):
            try:
                writer.close()
            except OSError as error:  # another one may be on its way, which this must not hide
                logging.warning("the last figures in %s are not written: %s", self.path.parent, error)


def read(workdir: pathlib.Path) -> list[dict]:
    """The rows of workdir/metrics.jsonl; none if there is no file; a last line cut short by a crash is passed over."""
    path = workdir / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
