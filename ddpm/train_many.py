"""--mode train: one run, those of a sweep, or those that a search chooses."""

import pathlib

from ml_collections import ConfigDict

from ddpm import remote, settings, sweep
from ddpm.errors import InputError
from ddpm.search import Search
from ddpm.train import train

TRIALS = 20


def train_many(
    config: ConfigDict,
    experiment: str,
    workdir: pathlib.Path | None,
    *,
    text: str | None,
    index: int | None,
    listing: bool,
    metric: str | None,
    trials: int | None,
    accept_changes: bool,
) -> int:
    """Trains what the flags ask for, or lists it; returns the exit code.

    Args:
      experiment: its file, whose functions `sweep(add)` and `space(trial)` say what runs there are.
      workdir: needed but to list a sweep.
      text, index, listing, metric, trials: of --sweep, --index, --list, --search and --trials.
    Raises:
      InputError: flags that do not go together, or a mistake in what they say.
    """
    if metric:
        if text is not None or index is not None:
            raise InputError("--sweep and --index do nothing beside --search.")
        return _search(config, experiment, _given(workdir), metric, trials or TRIALS, listing, accept_changes)
    if trials:
        raise InputError("--trials does nothing without --search.")
    add = settings.function(experiment, "sweep")
    if text is None and add is None:
        if listing or index is not None:
            flag = "--list" if listing else "--index"
            raise InputError(f"{flag} needs --sweep, or a function sweep(add) in {experiment}.")
        sweep.check_holds_no_sweep(_given(workdir))
        return train(config, _given(workdir), accept_changes=accept_changes)
    runs = settings.added(add, config) if text is None else settings.listed(text, config)
    if listing:
        print(*sweep.lines(config, runs, workdir), sep="\n")
        return 0
    return sweep.run(config, runs, _given(workdir), index, accept_changes=accept_changes)


def _search(config, experiment, workdir, metric, trials, listing, accept_changes) -> int:
    if remote.address(workdir):
        raise InputError(
            "a search keeps its journal where all workers see it: give --workdir a directory, mounted if need be."
        )
    space = settings.function(experiment, "space")
    if space is None:
        raise InputError(f"--search needs a function space(trial) in {experiment}, as in experiments/sweep_digits.py.")
    search = Search(config, workdir, metric)
    code = 0 if listing else search.work(space, trials, accept_changes=accept_changes)
    print(*search.lines(), sep="\n")
    return code


def _given(workdir: pathlib.Path | None) -> pathlib.Path:
    if workdir is None:
        raise InputError("--mode train needs --workdir, such as --workdir runs/digits.")
    return workdir
