"""What is compiled once serves all steps of a training; of a sampler all seeds, images, numbers of steps, labels and scales."""

import contextlib

import jax
import pytest

import ddpm
from ddpm.train import train


@contextlib.contextmanager
def programs():
    """The programs that are compiled meanwhile: seconds that each took."""
    found = []

    def heard(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield found
    jax.monitoring.unregister_event_duration_listener(heard)


@pytest.fixture
def labelled(tiny):
    tiny.condition.labels = True
    tiny.training.log_every = 1
    return tiny


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_run_of_more_steps_compiles_no_more(labelled, tmp_path, at_once):
    labelled.training.update(steps_per_dispatch=at_once, log_every=at_once)
    counts = []
    for num_steps in (6, 12):
        labelled.training.num_steps = num_steps
        jax.clear_caches()
        with programs() as compiled:
            assert train(labelled, tmp_path / str(num_steps), accept_changes=False) == 0
        counts.append(len(compiled))
    assert counts[0] == counts[1] > 0


def test_seeds_labels_scales_and_numbers_of_steps_share_a_program(labelled, tmp_path):
    assert train(labelled, tmp_path, accept_changes=False) == 0
    run = ddpm.load(tmp_path)
    jax.clear_caches()  # another test of the process may have drawn from a model that equals this one
    with programs() as compiled:
        run.sample(8, seed=0, labels=(1,), guidance_scale=2.0, sampler="ddim", num_steps=4)
    assert compiled != []
    with programs() as compiled:
        for seed in (1, 2):
            run.sample(8, seed=seed, labels=(seed,), guidance_scale=1.5 + seed, sampler="ddim", num_steps=4 + seed)
        run.sample(20, seed=3, labels=(4, 5), guidance_scale=3.0, sampler="ddim", num_steps=16)
    assert compiled == []
