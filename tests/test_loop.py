"""The training loop: what is due when, what is saved and counted, how it stops."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm.diffusion import losses, schedules, weights
from ddpm.diffusion.processes import VP
from ddpm.errors import InputError
from ddpm.rng import stream
from ddpm.training import loop
from ddpm.training.interrupt import Interrupted
from ddpm.training.state import init_state

VP_COSINE = VP(schedules.cosine(1000))
LOSS = losses.weighted(weights.simple())
KEY = stream(0, "train")


def plan(**options):
    values = dict(num_steps=10, log_every=4, sample_every=0, evaluate_every=0, save_every=5)
    return loop.Plan(**values | dict(batch_size=8, accumulate=1, max_skipped=3) | options)


def test_what_is_due_when():
    p = plan()
    assert [step for step in range(11) if p.due(step, p.save_every)] == [5, 10]
    assert [step for step in range(11) if p.due(step, p.log_every)] == [4, 8, 10]
    assert not any(p.due(step, 0) for step in range(11))
    assert [p.until_due(step) for step in (0, 3, 4, 8, 9)] == [4, 1, 1, 2, 1]


class Recorded:
    """Stands for all that the loop calls; notes what it does, and when."""

    def __init__(self, finite=lambda batch: True):
        self.saved, self.evaluated, self.logged, self.previewed, self.finite = [], [], [], [], finite

    def steps(self, state, given, batches):
        ok = [self.finite(int(state.batch) + i) for i in range(batches)]
        skipped = 0 if ok[-1] else int(state.skipped) + batches
        figures = dict(loss=1.0, grad_norm=2.0, finite=np.array(ok), skipped=skipped)
        figures |= dict(quarter_loss=np.ones(4), quarter_count=np.ones(4)) if batches == 1 else {}
        if batches > 1:
            per = {"loss": (), "grad_norm": (), "skipped": (), "quarter_loss": (4,), "quarter_count": (4,)}
            figures = {k: np.full((batches, *shape), 1.0) for k, shape in per.items()} | {"finite": np.array(ok)}
            figures["skipped"] = np.zeros(batches, int)
        return dataclasses.replace(state, batch=state.batch + batches, skipped=jnp.asarray(skipped)), figures

    def given(self):
        """What a dispatch is given."""

    def run(self, state=None, stop=lambda: False, steps_per_dispatch=1, evaluate=None, **options):
        return loop.train(
            state or init_state({"a": jnp.zeros(())}, optax.sgd(0.1)),
            self.steps,
            iter(self.given, 1),
            plan(**options),
            steps_per_dispatch=steps_per_dispatch,
            evaluate=evaluate or (lambda step, state: self.evaluated.append(step)),
            save=lambda step, state: step in self.saved or self.saved.append(step),
            preview=lambda step, state: self.previewed.append(step),
            progress=lambda step, figures: figures and self.logged.append((step, figures)),
            interrupted=stop,
        )


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_the_loop_saves_samples_and_logs_when_due(steps_per_dispatch):
    seen = Recorded()
    step, state = seen.run(steps_per_dispatch=steps_per_dispatch, sample_every=6)
    assert (step, int(state.batch)) == (10, 10)
    assert seen.saved == [5, 6, 10] and seen.previewed == [6, 10] and [s for s, _ in seen.logged] == [4, 8, 10]


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_a_step_that_is_evaluated_is_saved_too(steps_per_dispatch):
    seen = Recorded()
    seen.run(steps_per_dispatch=steps_per_dispatch, evaluate_every=7)
    assert seen.evaluated == [7, 10] and seen.saved == [5, 7, 10]


def test_the_loop_counts_accumulated_batches_as_one_step():
    seen = Recorded()
    step, state = seen.run(accumulate=3)
    assert (step, int(state.batch)) == (10, 30) and seen.saved == [5, 10]


def test_a_step_is_saved_before_its_figures_and_samples_and_an_interruption_cuts_these_short():
    seen, told = Recorded(), []

    def evaluate(step, state):
        assert seen.saved[-1] == step
        told.append(step)
        raise Interrupted

    step, _ = seen.run(evaluate=evaluate, stop=lambda: bool(told), evaluate_every=4, sample_every=4)
    assert (step, seen.saved, seen.previewed, told) == (4, [4], [], [4])


def test_what_a_killed_run_left_undone_at_its_last_step_is_done_on_resuming():
    state = dataclasses.replace(init_state({"a": jnp.zeros(())}, optax.sgd(0.1)), batch=np.int32(8))
    seen = Recorded()
    seen.run(state, evaluate_every=4, sample_every=8)
    assert seen.evaluated == [8, 10] and seen.previewed == [8, 10]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, "5 to 7"), (2, "3 to 4"), (4, "2 to 2")])
def test_the_steps_that_were_not_finite_are_counted_in_steps(accumulate, steps):
    with pytest.raises(InputError, match=f"for 3 batches in a row, steps {steps};"):
        Recorded(finite=lambda batch: batch < 4).run(accumulate=accumulate, log_every=0)


def test_an_interruption_saves_the_step_it_came_in():
    seen, asked = Recorded(), iter([False] * 3 + [True])
    assert seen.run(stop=lambda: next(asked))[0] == 3
    assert seen.saved == [3]


def test_a_run_of_batches_that_are_not_finite_stops_with_its_steps_and_a_remedy():
    seen = Recorded(finite=lambda batch: batch < 4)
    with pytest.raises(InputError) as caught:
        seen.run()
    assert str(caught.value) == (
        "loss or gradient was not finite for 3 batches in a row, steps 5 to 7; they were skipped and parameters, EMA and "
        "checkpoints are as before. Lower optimizer.learning_rate or optimizer.clip_norm, look at the data, or use float32 "
        "instead of bfloat16; then run the same command."
    )
    assert sum(figures["skipped"] for _, figures in seen.logged) == 4  # what came of them is in the report: 5 to 8


def test_single_batches_that_are_not_finite_are_counted_and_left_out_of_the_averages():
    seen = Recorded(finite=lambda batch: batch != 2)
    seen.run()
    assert [figures["skipped"] for _, figures in seen.logged] == [1, 0, 0]
    assert seen.logged[0][1]["loss"] == 1.0 and seen.logged[0][1]["loss_t_quarter_1"] == 1.0


def test_the_share_of_waiting_for_data_is_logged(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def pass_by(self, seconds):
            self.now += seconds

    clock, recorded = Clock(), Recorded()
    steps = recorded.steps
    monkeypatch.setattr(loop, "time", clock)
    recorded.given = lambda: clock.pass_by(1.0)
    recorded.steps = lambda *given: clock.pass_by(3.0) or steps(*given)
    recorded.run(num_steps=4, log_every=2)
    assert [figures["waiting_for_data"] for _, figures in recorded.logged] == [0.25, 0.25]
