"""Adaptive search: Optuna chooses the settings of each run; any number of workers share the trials of one workdir."""

import contextlib
import gc
import logging
import math
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ddpm import sweep
from ddpm.errors import InputError, MachineError, unknown_name
from ddpm.evaluate import best_figure
from ddpm.evaluation import records
from ddpm.settings import called, changed, checked, folder, said
from ddpm.train import train
from ddpm.training import interrupt, metrics

DIGITS = 4  # of the numbers of runs
BEAT, DEAD = 15, 120  # seconds: how often a worker says that it lives, and after how long without it is taken for dead
DEATHS = 3  # workers that may die of a run before it is given up


class Search:
    """The trials of a workdir, a run each. One that its worker leaves goes to the next as a new trial of the same run.

    Args:
      config: the experiment.
      workdir: on a disk that all workers share.
      metric: 'loss', or one of `evaluation.metrics` as the evaluations while training have it.
    Raises:
      InputError: a metric that training does not compute, a workdir of something else, or no Optuna.
    """

    def __init__(self, config: ConfigDict, workdir: pathlib.Path, metric: str):
        self._config, self._workdir, self._figure = config, workdir, _figure(config, metric)
        self._aim = records.aim(self._figure)
        if self._aim is None:
            raise InputError(f"--search {metric}: {self._figure} is good neither high nor low.")
        sweep.check_holds_no_run(workdir)
        if (workdir / sweep.FILE).exists():
            raise InputError(f"{workdir} holds a sweep: give the search a --workdir of its own.")
        self._optuna = _optuna()
        self._states = self._optuna.trial.TrialState
        self._study = self._opened(metric)

    def work(self, space: Callable[[Any], Any], trials: int, *, accept_changes: bool) -> int:
        """Trains trials until there are so many, those of other workers among them; returns the exit code.

        Args:
          space: asks a trial for values of keys, such as trial.suggest_float('optimizer.learning_rate', 1e-4, 1e-2).
        Raises:
          InputError: a mistake in the space, or in a run before its first figures.
        """
        if jax.process_count() > 1:
            raise InputError("a trial runs in one process: start the workers of a search each by itself.")
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(interrupt.EXIT_CODE))  # trainings have their own
        try:
            while trial := self._next(trials):
                if code := self._run(trial, space, accept_changes):
                    return code
                gc.collect()  # the devices' memory of what has ended
        finally:
            signal.signal(signal.SIGTERM, before)
        if elsewhere := len(self._trials(self._states.RUNNING)):
            print(
                f"{elsewhere} of the trials are with other workers; of a dead one this command takes them after {DEAD} s"
            )
        return 0

    def lines(self) -> Iterator[str]:
        """A line a run, the best first: its number and settings, how far it is, and the metric."""
        rows, name = [], self._figure if math.isinf(self._aim) else f"|{self._figure} - {self._aim}|"
        for run, trial in {_run_of(trial): trial for trial in self._trials()}.items():
            value = trial.intermediate_values.get(trial.last_step, math.nan)
            state = {"COMPLETE": "finished", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
            rank = (state != "finished", math.isnan(value), -value if self._aim == math.inf else value)
            told = "" if math.isnan(value) else f"{name} {value:.4g} at step {trial.last_step}"
            settings = trial.params or trial.system_attrs.get("fixed_params", {})  # of one that waits
            rows.append((rank, [str(run), said(settings), state, told]))
        yield from sweep.aligned(row for _, row in sorted(rows))

    def _opened(self, metric):
        self._workdir.mkdir(parents=True, exist_ok=True)
        path, optuna = str(self._workdir / sweep.SEARCH_FILE), self._optuna
        lock = optuna.storages.journal.JournalFileOpenLock(path)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path, lock_obj=lock))
        for other in set(optuna.get_all_study_names(storage)) - {metric}:
            raise InputError(
                f"{self._workdir} holds a search by {other!r}: give --search {other}, or another --workdir."
            )
        return optuna.create_study(
            storage=storage,
            study_name=metric,
            load_if_exists=True,
            direction="maximize" if self._aim == math.inf else "minimize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=self._config.optimizer.warmup_steps),
        )

    def _trials(self, *states):
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _next(self, trials: int):
        """The next trial, first of those that another worker left; None when there are enough."""
        for trial in self._trials(self._states.RUNNING):
            if time.time() - self._last_beat(trial) > DEAD:
                self._leave(trial, deaths=1)
        if not self._trials(self._states.WAITING) and self._runs_before() >= trials:
            return None
        trial = self._study.ask()
        if not _is_again(trial) and self._runs_before(trial.number) >= trials:  # another worker was quicker
            self._tell(trial, state=self._states.FAIL)
            return None
        # By its number: what is drawn does not depend on the worker, and no two workers draw the same.
        seed = np.random.SeedSequence([abs(self._config.seed), trial.number]).generate_state(1)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(seed[0]))
        return trial

    def _runs_before(self, number: int | None = None) -> int:
        return sum(not _is_again(trial) for trial in self._trials()[:number])

    def _run(self, trial, space, accept_changes: bool) -> int:
        run, place = _run_of(trial), None
        with self._beating(trial):
            try:
                called(space, trial)
                settings = checked(trial.params, self._config)
                place = folder(self._workdir, run, settings, DIGITS)
                print(f"trial {run}: {said(settings)}", flush=True)
                own, watch = changed(self._config, settings), self._watching(trial, place)
                code = train(own, place, accept_changes=accept_changes, watch=watch)
                if code:
                    self._leave(trial)
                    return code
                values = list(self._values(place).values())
                if not values:
                    raise InputError(f"the training in {place} has left no {self._figure} to search by.")
                self._tell(trial, self._score(values[-1]))
            except self._optuna.TrialPruned:
                self._tell(trial, state=self._states.PRUNED)
                print(f"trial {run} is pruned", flush=True)
            except self._optuna.exceptions.UpdateFinishedTrialError:
                logging.warning("trial %d went to another worker, which took this one for dead", run)
            except MachineError:
                self._leave(trial)
                raise
            except sweep.FAILURES as error:
                mistaken = isinstance(error, InputError) and not (place and self._values(place))
                # One that went wrong on its way, or had too little memory, is as bad a choice as one that is pruned.
                self._tell(trial, state=self._states.FAIL if mistaken else self._states.PRUNED)
                if mistaken:
                    raise
                logging.warning("trial %d: %s", run, error)
            except BaseException as error:
                self._leave(trial, deaths=int(isinstance(error, Exception)))
                raise
        return 0

    def _watching(self, trial, place) -> Callable[[int, dict], None]:
        reported = set()

        def report(step, value):
            if step not in reported:
                trial.report(self._score(value), step)
                reported.add(step)

        for step, value in self._values(place).items():  # of the worker before
            report(step, value)

        def watch(step: int, figures: dict) -> None:
            if self._figure in figures:
                report(step, figures[self._figure])
                if trial.should_prune():
                    raise self._optuna.TrialPruned

        return watch

    def _values(self, place: pathlib.Path) -> dict[int, float]:
        """The metric by step, of a run's directory."""
        if self._figure == "loss":
            return {row["step"]: row["loss"] for row in metrics.read(place) if "loss" in row}
        return records.while_training(place, self._figure)

    def _score(self, value: float) -> float:
        return value if math.isinf(self._aim) else abs(value - self._aim)

    def _leave(self, trial, deaths: int = 0) -> None:
        """Gives a trial that did not end to the next worker."""
        deaths += trial.user_attrs.get("deaths", 0)
        if self._tell(trial, state=self._states.FAIL) and deaths < DEATHS:
            self._study.enqueue_trial(trial.params, user_attrs={"run": _run_of(trial), "deaths": deaths})

    def _tell(self, trial, value: float | int | None = None, **how) -> bool:
        """Ends a trial; whether no other worker did before."""
        try:
            self._study.tell(trial.number, value, **how)
        except (ValueError, self._optuna.exceptions.UpdateFinishedTrialError):
            logging.warning("trial %d went to another worker, which took this one for dead", _run_of(trial))
            return False
        return True

    def _alive(self, trial) -> pathlib.Path:
        return self._workdir / "alive" / str(trial.number)

    def _last_beat(self, trial) -> float:
        file = self._alive(trial)
        return file.stat().st_mtime if file.exists() else trial.datetime_start.timestamp()

    @contextlib.contextmanager
    def _beating(self, trial):
        file, over = self._alive(trial), threading.Event()
        file.parent.mkdir(exist_ok=True)
        file.touch()

        def beat():
            while not over.wait(BEAT):
                with contextlib.suppress(OSError):  # such as of a full disk
                    file.touch()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            file.unlink(missing_ok=True)


def _is_again(trial) -> bool:
    return "run" in trial.user_attrs


def _run_of(trial) -> int:
    """The number of a trial's run: that of the first trial of it."""
    return trial.user_attrs.get("run", trial.number)


def _figure(config: ConfigDict, metric: str) -> str:
    if metric != "loss" and metric not in config.evaluation.metrics:
        raise unknown_name("metric of a search", metric, ["loss", *config.evaluation.metrics])
    every = "log_every" if metric == "loss" else "evaluate_every"
    if not config.training[every]:
        raise InputError(f"training.{every} = 0, so no training has a {metric} to search by: set it.")
    return metric if metric == "loss" else best_figure(changed(config, {"evaluation.best": metric}).evaluation)


def _optuna():
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "--search needs the package optuna, which is not installed: pip install 'optuna>=4.5'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
