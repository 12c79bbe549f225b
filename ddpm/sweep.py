"""Many runs of one experiment: a numbered list of settings, each trained in a directory of its own."""

import gc
import itertools
import json
import logging
import pathlib
import uuid
from collections.abc import Iterable, Iterator

import jax
from ml_collections import ConfigDict

from ddpm import remote, sharding
from ddpm.errors import InputError, MachineError
from ddpm.evaluation import records
from ddpm.settings import Settings, changed, folder, said
from ddpm.train import train
from ddpm.training import checkpoint, metrics

FILE, SEARCH_FILE = "sweep.json", "optuna.log"
FAILURES = (InputError, jax.errors.JaxRuntimeError)  # of one run: a loss that is not finite, too little memory


def folders(workdir: pathlib.Path, runs: list[Settings]) -> list[pathlib.Path]:
    """The directory of each run of a sweep."""
    digits = len(str(len(runs) - 1))
    return [folder(workdir, number, settings, digits) for number, settings in enumerate(runs)]


def is_finished(config: ConfigDict, workdir: pathlib.Path) -> bool:
    """Whether a run was trained to its end, and all that it leaves was made."""
    return _newest(workdir) == config.training.num_steps and (workdir / "loss.png").exists()


def run(
    config: ConfigDict, runs: list[Settings], workdir: pathlib.Path, index: int | None, *, accept_changes: bool
) -> int:
    """Trains run `index`, or all in turn; what is finished is passed over; returns the exit code.

    Raises:
      InputError: no such run, a workdir of something else, or a mistake in a run; of several, after all were tried.
    """
    if index is not None and index >= len(runs):
        raise InputError(f"--index {index} is not in 0..{len(runs) - 1}: the sweep has {len(runs)} runs, see --list.")
    check_workdir(workdir, runs)
    _keep(workdir, runs)
    places, mistakes = folders(workdir, runs), {}
    for number in range(len(runs)) if index is None else [index]:
        own, place = changed(config, runs[number]), places[number]
        if sharding.agreed(is_finished(own, place)):
            print(f"run {number} of 0..{len(runs) - 1} is finished: {place}", flush=True)
            continue
        print(f"run {number} of 0..{len(runs) - 1}: {said(runs[number])}", flush=True)
        try:
            code = train(own, place, accept_changes=accept_changes)
        except FAILURES as error:
            if index is not None or jax.process_count() > 1:  # the others may be in the middle of it
                raise
            logging.warning("run %d: %s", number, error)
            mistakes[number] = error
        else:
            if code:
                return code
        gc.collect()  # the devices' memory of what has ended
    if mistakes:
        first, error = next(iter(mistakes.items()))
        told = str(error).splitlines()[0]
        kind = MachineError if any(isinstance(each, MachineError) for each in mistakes.values()) else InputError
        raise kind(f"{len(mistakes)} of {len(runs)} runs failed, the first of them run {first}: {told}")
    return 0


def lines(config: ConfigDict, runs: list[Settings], workdir: pathlib.Path | None) -> Iterator[str]:
    """A line a run: its number and settings; with a workdir how far it is, and its newest figures.

    Raises:
      InputError: a workdir of something else.
    """
    if workdir is None:
        yield from aligned([str(number), said(settings)] for number, settings in enumerate(runs))
        return
    check_workdir(workdir, runs)
    yield from aligned(
        [str(number), said(settings), state(changed(config, settings), place), newest_figures(place)]
        for number, (settings, place) in enumerate(zip(runs, folders(workdir, runs), strict=True))
    )


def aligned(rows: Iterable[list[str]]) -> Iterator[str]:
    """Rows as lines, their columns below one another."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def state(config: ConfigDict, workdir: pathlib.Path) -> str:
    """How far a run is, in words."""
    if not workdir.exists():
        return "not started"
    if is_finished(config, workdir):
        return "finished"
    return f"step {_newest(workdir)} of {config.training.num_steps}"


def newest_figures(workdir: pathlib.Path) -> str:
    """The last loss of a run, and the figures of its newest evaluation."""
    found = {}
    for row in metrics.read(workdir):
        found |= {"loss": row["loss"]} if "loss" in row else {}
    for row in records.read(workdir)[-1:]:
        found |= row["figures"]
    return "  ".join(f"{name} {value:.4g}" for name, value in found.items())


def check_workdir(workdir: pathlib.Path, runs: list[Settings]) -> None:
    """Raises InputError for a workdir that holds a run, a search or another sweep."""
    check_holds_no_run(workdir)
    if (workdir / SEARCH_FILE).exists():
        raise InputError(f"{workdir} holds a search: give the sweep a --workdir of its own.")
    file = workdir / FILE
    if not file.exists():
        return
    before, now = json.loads(file.read_text()), json.loads(_text(runs))
    if before != now:
        differing = [n for n, pair in enumerate(itertools.zip_longest(before, now)) if pair[0] != pair[1]]
        was, new = (said(of[differing[0]]) if differing[0] < len(of) else "none" for of in (before, now))
        raise InputError(
            f"{workdir} holds another sweep of {len(before)} runs; run {differing[0]}: {was} there, {new} here. Give the "
            "sweep it was begun with, or another --workdir."
        )


def check_holds_no_run(workdir: pathlib.Path) -> None:
    """Raises InputError for the workdir of a single run."""
    if remote.checkpoints(workdir).exists():
        raise InputError(f"{workdir} holds a run itself: give what makes many runs a --workdir of its own.")


def check_holds_no_sweep(workdir: pathlib.Path) -> None:
    """Raises InputError for the workdir of many runs."""
    for file, flag in ((FILE, "--sweep"), (SEARCH_FILE, "--search")):
        if (workdir / file).exists():
            raise InputError(f"{workdir} holds many runs: give {flag} to go on with them, or another --workdir.")


def _keep(workdir, runs):
    workdir.mkdir(parents=True, exist_ok=True)
    part = workdir / f".{FILE}.{uuid.uuid4().hex}"
    part.write_text(_text(runs))
    part.replace(workdir / FILE)  # jobs of an array begin at once: at no moment is there less than a whole file
    check_workdir(workdir, runs)


def _text(runs) -> str:
    return "[\n" + ",\n".join(json.dumps(settings) for settings in runs) + "\n]\n"


def _newest(workdir) -> int:
    return max(checkpoint.steps_in(remote.checkpoints(workdir)), default=0)
