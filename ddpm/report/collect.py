"""What runs left in their directories, as plain data."""

import dataclasses
import io
import logging
import math
import os
import pathlib
import re
from collections.abc import Callable

import numpy as np
from PIL import Image

from ddpm import remote
from ddpm.errors import InputError
from ddpm.evaluation import records
from ddpm.training import checkpoint

GRIDS = 24  # steps of sample grids on a page, over all its runs; at least the newest of each
ANIMATION_BYTES = 2 * 2**20  # larger ones are left out
PICTURES = {
    "samples/path.png": "From noise to image: a row a sample",
    "samples/path.gif": "The same, moving",
    "evaluation/neighbours.png": "Samples (left) and their nearest training images",
}


@dataclasses.dataclass
class Collected:
    """What a run's directory holds.

    workdir: the directory.
    name: short, and unique on its page.
    metrics: rows of metrics.jsonl, rising in step.
    record: of the newest checkpoint that can be read (config, facts, versions, step); empty without one.
    evaluations: rows of evaluation.jsonl, in the order they were written.
    grids: by step, the bytes of PNG sheets by the kind of their parameters, 'EMA' or 'raw'.
    grids_left_out: how many more there are.
    pictures: bytes of the PICTURES that are there, by file.
    notes: what is missing or could not be read, a sentence each.
    """

    workdir: pathlib.Path
    name: str
    metrics: list[dict] = dataclasses.field(default_factory=list)
    record: dict = dataclasses.field(default_factory=dict)
    evaluations: list[dict] = dataclasses.field(default_factory=list)
    grids: dict[int, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    grids_left_out: int = 0
    pictures: dict[str, bytes] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def step(self) -> int | None:
        """The newest step of metrics and checkpoints."""
        return max([row["step"] for row in [*self.metrics[-1:], self.record] if "step" in row], default=None)

    @property
    def config(self) -> dict:
        """The configuration; empty without a checkpoint."""
        return self.record.get("config", {})


def collect(workdirs: list[pathlib.Path]) -> list[Collected]:
    """Reads runs, those of a sweep or search by its workdir; of several, those with nothing to show are passed over with a
    warning.

    Raises:
      InputError: a directory that is not there, or nothing to show in any.
    """
    for path in workdirs:
        if not path.exists():
            raise InputError(f"no directory {path}: give the --workdir of a run.")
    found = {pathlib.Path(os.path.abspath(path)): path for given in workdirs for path in _runs_in(given)}
    names = short_names(list(found))
    runs = [_read(path, names[absolute], max(1, GRIDS // len(found))) for absolute, path in found.items()]
    kept = [run for run in runs if run.metrics or run.record or run.evaluations or run.grids or run.pictures]
    if not kept:
        where = ", ".join(map(str, workdirs[:3])) + (", ..." if len(workdirs) > 3 else "")
        found = "; ".join(note for run in runs[:3] for note in run.notes)
        raise InputError(
            f"nothing to show in {where}: no metrics.jsonl, checkpoint, samples or evaluation.jsonl"
            f"{found and f' that can be read: {found}'}."
        )
    for run in runs:
        if run not in kept:
            logging.warning("%s is no run: passed over", run.workdir)
        elif not run.record:
            run.notes.append("no checkpoint that can be read, so configuration, data and versions are not known")
        for note in run.notes:
            logging.warning("%s: %s", run.workdir, note)
    return kept


def common(workdirs: list[pathlib.Path]) -> tuple[str, pathlib.Path]:
    """A title for runs, and the directory of their page: the run's own, or that which holds them all; where only the
    root of the disk does, the first run's."""
    absolute = {pathlib.Path(os.path.abspath(path)): path for path in workdirs}
    if len(absolute) == 1:
        return next(iter(absolute)).name, workdirs[0]
    place = pathlib.Path(os.path.commonpath([path.parent for path in absolute]))
    if not place.name:
        return "Runs", workdirs[0]
    near = pathlib.Path(os.path.relpath(place))
    return f"Runs of {place.name}", place if ".." in near.parts else near


def short_names(paths: list[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Names of directories: the end of each path, from where they begin to differ."""
    common = pathlib.Path(os.path.commonpath([path.parent for path in paths]))
    return {path: str(path.relative_to(common)) for path in paths}


def _runs_in(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The directories of runs in one that is none itself; else the directory."""
    inner = [path.parent for file in ("checkpoints", "metrics.jsonl") for path in workdir.glob(f"*/{file}")]
    is_run = any((workdir / file).exists() for file in ("checkpoints", "metrics.jsonl", records.FILE))
    return sorted(set(inner)) if inner and not is_run else [workdir]


def _read(workdir: pathlib.Path, name: str, max_grids: int) -> Collected:
    run = Collected(workdir, name)
    if not workdir.is_dir():
        return run
    run.metrics = sorted(_rows(run, "metrics.jsonl", _is_metrics), key=lambda row: row["step"])
    run.evaluations = _rows(run, records.FILE, records.is_record)
    run.record = _record(run)
    sheets = {
        int(file.stem): {"EMA": file, "raw": file.with_stem(f"{file.stem}_raw")}
        for file in workdir.glob("samples/*.png")
        if re.fullmatch(r"\d+", file.stem)
    }
    steps = sorted(sheets)
    chosen = sorted({steps[-1 - round(i)] for i in np.linspace(0, len(steps) - 1, max_grids)}) if steps else []
    run.grids_left_out = len(steps) - len(chosen)
    for step in chosen:
        sheet = {kind: picture for kind, file in sheets[step].items() if (picture := _picture(run, file))}
        if sheet:
            run.grids[step] = sheet
    for file in PICTURES:
        path = workdir / file
        if path.suffix == ".gif" and path.exists() and path.stat().st_size > ANIMATION_BYTES:
            continue
        if picture := _picture(run, path):
            run.pictures[file] = picture
    return run


def _rows(run: Collected, file: str, valid: Callable[[object], bool]) -> list[dict]:
    try:
        found, broken = records.rows(run.workdir / file, valid)
    except OSError as error:
        run.notes.append(f"{file} cannot be read ({error.strerror})")
        return []
    if broken:
        run.notes.append(f"{broken} broken line{'s' * (broken > 1)} of {file} skipped")
    return found


def _is_metrics(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("step"), int)


def number(value) -> float | int | None:
    """The value if it is a finite number, else None: JSON has no others."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if numeric and math.isfinite(value) else None


def _record(run: Collected) -> dict:
    directory = remote.checkpoints(run.workdir)
    for step in reversed(checkpoint.steps_in(directory)):
        try:
            return checkpoint.read_record(directory, step) | {"step": step}
        except checkpoint.Broken:
            run.notes.append(f"checkpoint {step} is broken")
    return {}


def _picture(run: Collected, file: pathlib.Path) -> bytes | None:
    if not file.exists():
        return None
    try:
        content = file.read_bytes()
        Image.open(io.BytesIO(content)).load()
    except (OSError, SyntaxError, ValueError) as error:
        run.notes.append(f"{file.relative_to(run.workdir)} cannot be read as an image ({str(error).splitlines()[0]})")
        return None
    return content
