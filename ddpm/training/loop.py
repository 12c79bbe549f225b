"""The training loop, and what it compiles."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from ddpm.data.pipeline import Feed
from ddpm.errors import InputError, check_at_least, first_line
from ddpm.rng import stream
from ddpm.sharding import replicated
from ddpm.training import traced
from ddpm.training.interrupt import Interrupted
from ddpm.training.memory import REMEDY
from ddpm.training.metrics import average
from ddpm.training.state import State
from ddpm.tuning import give_back_memory, keep_room


@dataclasses.dataclass(frozen=True)
class Plan:
    """When a run does what, in steps; a step is one optimizer update, or one skipped.

    num_steps: steps of the whole run; after the last one it saves.
    log_every, sample_every, evaluate_every, save_every: at multiples of these and at the last step; 0 for never. A step
      that is sampled or evaluated is saved too.
    batch_size, accumulate: images a batch, and batches a step.
    max_skipped: batches skipped in a row, for what is not finite, before the run stops.

    Raises:
      InputError: a negative interval, or another number below 1.
    """

    num_steps: int
    log_every: int
    sample_every: int
    evaluate_every: int
    save_every: int
    batch_size: int
    accumulate: int
    max_skipped: int

    def __post_init__(self):
        intervals = ("log_every", "sample_every", "evaluate_every", "save_every")
        for field, value in dataclasses.asdict(self).items():
            check_at_least(0 if field in intervals else 1, **{f"training.{field}": value})

    def due(self, step: int, every: int) -> bool:
        """Whether something done `every` steps is due at `step`."""
        return bool(every and step) and (step % every == 0 or step == self.num_steps)

    def until_due(self, step: int) -> int:
        """Steps from `step` to the next one at which anything is due."""
        intervals = [
            every for every in (self.log_every, self.sample_every, self.evaluate_every, self.save_every) if every
        ]
        return min([self.num_steps - step] + [every - step % every for every in intervals])


class Steps:
    """(state, given, batches) -> (state, metrics): draws each batch and takes its step, all in one dispatch.

    Several batches are scanned: metrics come stacked. The state is donated, so that its memory is used again.

    Args:
      abstract: the state's shapes, dtypes and shardings.
      first: batches of the first dispatch; its program is traced now, and compiled in a thread while the caller makes the state.
      about: what makes the step what it is, in words, so that what was traced once is found again; None to trace it now.
    """

    def __init__(
        self, train_step: Callable, feed: Feed, seed: int, abstract: State, first: int, about: dict | None = None
    ):
        key = stream(seed, "train")

        def one(state, given):
            batch = feed.draw(given, state.batch)
            return train_step(state, batch, jax.random.fold_in(key, state.batch))

        self._check = self._checked = None
        if about is not None:
            one, self._check = traced.kept(one, abstract, feed.given, about | {"seed": seed})
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        everywhere = replicated(abstract.batch.sharding.mesh)

        @functools.partial(jax.jit, donate_argnums=0, static_argnums=2, out_shardings=(shardings, everywhere))
        def several(state, given, batches):
            if batches == 1:
                return one(state, given)
            return jax.lax.scan(lambda state, _: one(state, given), state, length=batches)

        self._lower = lambda batches: several.lower(abstract, feed.given, batches)
        self._compiler, self._programs, self._first = ThreadPoolExecutor(1), {}, first
        self._program(first)

    def __call__(self, state: State, given: Any, batches: int) -> tuple[State, dict]:
        """Takes so many steps.

        Raises:
          MachineError: it became known that those taken are not of the code.
        """
        program = self._program(batches).result()
        keep_room()
        made = program(state, given)
        if self._check and not self._checked:
            self._checked = self._compiler.submit(self._check)  # now that the first step is taken
        elif self._checked and self._checked.done():
            self.check()
        return made

    def check(self) -> None:
        """Waits until it is known that the steps taken are those of the code.

        Raises:
          MachineError: they are not; nothing of them may be saved.
        """
        if self._checked:
            self._checked.result()

    def activations(self) -> int:
        """Bytes on each device that the first program takes besides the state and what it is given."""
        try:
            size = self.compiled().memory_analysis().temp_size_in_bytes
            give_back_memory()  # of the whole plan, which comes with its size
            return size
        except jax.errors.JaxRuntimeError as error:  # as on TPU
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(f"a step does not fit the memory: {first_line(error)}: {REMEDY}") from error

    def compiled(self) -> jax.stages.Compiled:
        """The first program as XLA compiled it."""
        return self._program(self._first).result()

    def _program(self, batches):
        if batches not in self._programs:
            self._programs[batches] = self._compiler.submit(_compiled, self._lower(batches))
        return self._programs[batches]


def _compiled(lowered):
    program = lowered.compile()
    give_back_memory()
    return program


def train(
    state: State,
    steps: Callable[[State, jax.Array, int], tuple[State, dict]],
    given: Iterator[jax.Array],
    plan: Plan,
    *,
    steps_per_dispatch: int,
    save: Callable[[int, State], None],
    evaluate: Callable[[int, State], None],
    preview: Callable[[int, State], None],
    progress: Callable[[int, dict], None],
    interrupted: Callable[[], bool],
) -> tuple[int, State]:
    """Trains until plan.num_steps or an interruption; the state at the top of the loop is what a checkpoint holds.

    Args:
      state: the state to go on from, on the devices.
      steps: such as `Steps`.
      given: what each dispatch is given to draw its batches from.
      steps_per_dispatch: steps in one dispatch where nothing is due in between.
      save: starts to write a checkpoint, unless it is there.
      evaluate: computes figures of a step that was just saved, unless they are there; may raise Interrupted.
      preview: draws samples, likewise.
      progress: told every step, and its figures where they are due; `waiting_for_data` is the share of the time since the
        last ones that was spent in `given`.
      interrupted: whether to save and leave.
    Returns:
      The last step and its state.
    Raises:
      InputError: too many batches in a row were not finite, or a checkpoint could not be written.
    """
    step = int(state.batch) // plan.accumulate
    first, window, since, compiled, waited = step, [], time.monotonic(), 0, 0.0
    while True:
        # Before the next batch is drawn: all see state `step` and change nothing in it.
        paused, last = time.monotonic(), step >= plan.num_steps
        evaluated, previewed = plan.due(step, plan.evaluate_every), plan.due(step, plan.sample_every)
        if evaluated or previewed or last or plan.due(step, plan.save_every):
            save(step, state)  # first: what follows takes long, and a signal may be half a minute's notice
        with contextlib.suppress(Interrupted):
            if evaluated and not interrupted():
                evaluate(step, state)
            if previewed and not interrupted():
                preview(step, state)
        since += time.monotonic() - paused
        stop = interrupted()
        if stop:
            save(step, state)
        if stop or last:
            return step, state

        n = steps_per_dispatch if steps_per_dispatch <= plan.until_due(step) else 1
        scanned = n * plan.accumulate if steps_per_dispatch > 1 else 1
        for _ in range(n * plan.accumulate // scanned):
            began = time.monotonic()
            batches = next(given)
            waited += time.monotonic() - began
            state, figures = steps(state, batches, scanned)
            window.append(figures)
        step += n
        # Wait for all but the newest dispatch, so that an interruption and what is not finite are soon heeded.
        newest, known = window[-1]["skipped"], window[-2:][0]["skipped"]
        known_batches = step * plan.accumulate - (np.size(newest) if known is not newest else 0)
        in_a_row = int(np.ravel(known)[-1])
        hopeless = _not_finite(in_a_row, known_batches, plan) if in_a_row >= plan.max_skipped else None
        if step == first + n:
            jax.block_until_ready(state)
            since, compiled, waited = time.monotonic(), len(window), 0.0  # the first dispatch compiles

        if hopeless or plan.due(step, plan.log_every):
            window = jax.device_get(window)
            count, took = sum(np.size(figures["loss"]) for figures in window[compiled:]), time.monotonic() - since
            rate = {"images_per_second": count * plan.batch_size / took, "waiting_for_data": waited / took}
            progress(step, average(window) | (rate if count else {}))
            window, since, compiled, waited = [], time.monotonic(), 0, 0.0
        else:
            progress(step, {})
            window = window if plan.log_every else window[-1:]
        if hopeless:
            raise hopeless


def _not_finite(in_a_row: int, batch: int, plan: Plan) -> InputError:
    first, last = (-(-b // plan.accumulate) for b in (batch - in_a_row + 1, batch))
    return InputError(
        f"loss or gradient was not finite for {in_a_row} batches in a row, steps {first} to {last}; they were "
        "skipped and parameters, EMA and checkpoints are as before. Lower optimizer.learning_rate or "
        "optimizer.clip_norm, look at the data, or use float32 instead of bfloat16; then run the same command."
    )
