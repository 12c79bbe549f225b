"""A run that is killed and started again ends where the uninterrupted one does, bit for bit."""

import json
import pathlib
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import TINY, run, start

import ddpm

pytestmark = pytest.mark.slow


def state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by its path."""
    handler, path = ocp.PyTreeCheckpointHandler(), workdir / "checkpoints" / str(step) / "state"
    tree = handler.metadata(path).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    arrays = ocp.Checkpointer(handler).restore(path, args=ocp.args.PyTreeRestore(item=tree, restore_args=as_numpy))
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}


def steps(workdir):
    return [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]


def killed(process, workdir, number, beyond, delay=0.0):
    """Sends a signal as soon as there is a checkpoint beyond a step; returns the exit code."""
    limit = time.monotonic() + 300
    while max(steps(workdir), default=0) <= beyond and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    process.communicate(timeout=300)
    return process.returncode


IMPORTANCE = (  # times whose distribution is known, and drawn from, after a few steps
    "--config.timesteps.name=loss_second_moment",
    "--config.timesteps.loss_second_moment.history=2",
    "--config.loss.name=vlb",
    "--config.schedule.T=40",
)


@pytest.mark.parametrize(
    "options", [(), ("--config.optimizer.accumulate=2",), IMPORTANCE], ids=["plain", "accumulate", "importance"]
)
def test_three_kills_change_no_bit(tmp_path, options):
    arguments = [*TINY, *options, "--config.model.unet.dropout=0.1", "--config.data.flip=True"]
    arguments += ["--config.training.num_steps=40"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, _, err = run(*arguments, "--config.training.save_every=40", f"--workdir={whole}")
    assert code == 0, err
    chance = random.Random(0)
    for beyond in (0, 10, 20):
        killed(start(*arguments, f"--workdir={broken}"), broken, signal.SIGKILL, beyond, chance.uniform(0, 0.1))
        assert max(steps(broken)) < 40, "the run ended before it was killed; the test shows nothing"
    code, out, err = run(*arguments, f"--workdir={broken}")
    assert code == 0 and "resumed at step" in out, err

    a, b = state(whole, 40), state(broken, 40)
    assert a.keys() == b.keys() and any("ema_params" in key for key in a) and any("opt_state" in key for key in a)
    if options == IMPORTANCE:
        assert a["['history']['counts']"].min() >= 2
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    rows = [[json.loads(line) for line in (w / "metrics.jsonl").read_text().splitlines()] for w in (whole, broken)]
    for one, other in zip(*rows, strict=True):
        timed = {"images_per_second", "waiting_for_data"}
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_evaluation_while_training_changes_no_bit(tmp_path):
    short = [*TINY, "--config.training.num_steps=20", "--config.model.unet.dropout=0.1"]
    plain, evaluated = tmp_path / "plain", tmp_path / "evaluated"
    assert run(*short, f"--workdir={plain}")[0] == 0
    code, _, err = run(*short, f"--workdir={evaluated}", "--config.training.evaluate_every=7")
    assert code == 0 and (evaluated / "evaluation.jsonl").read_text().count("\n") == 3, err
    a, b = state(plain, 20), state(evaluated, 20)
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_the_best_checkpoint_outlives_newer_ones(tmp_path):
    spoilt = ("--config.optimizer.learning_rate=10.0", "--config.optimizer.clip_norm=1e9", "--config.ema.decay=0.0")
    often = ("--config.training.evaluate_every=5", "--config.training.keep=1")
    code, _, err = run(*TINY, f"--workdir={tmp_path}", *often, "--config.training.num_steps=10")
    assert code == 0, err
    code, _, err = run(*TINY, f"--workdir={tmp_path}", *often, *spoilt, "--config.training.num_steps=30")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    distance = {row["provenance"]["generated"]["step"]: row["figures"]["fd"] for row in rows}
    best = min(distance, key=distance.get)
    assert len(distance) == 6 and best < 30 and sorted(steps(tmp_path)) == [best, 30]
    assert ddpm.load(tmp_path, "best").step == best and ddpm.load(tmp_path).step == 30


def test_a_run_goes_on_on_other_devices(tmp_path):
    arguments = [*TINY, "--config.training.num_steps=20"]
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    assert run(*arguments, f"--workdir={whole}")[0] == 0
    assert run(*arguments, "--config.training.num_steps=10", f"--workdir={moved}")[0] == 0
    assert run(*arguments, f"--workdir={moved}", devices=2)[0] == 0
    a, b = state(whole, 20), state(moved, 20)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_75(tmp_path, number):
    process = start(*TINY, f"--workdir={tmp_path}", "--config.training.num_steps=100000")
    assert killed(process, tmp_path, number, 0, delay=0.05) == 75
    saved = max(steps(tmp_path))
    code, out, _ = run(*TINY, f"--workdir={tmp_path}", f"--config.training.num_steps={saved + 5}")
    assert code == 0 and f"resumed at step {saved} of {saved + 5}" in out


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    process = start(*TINY, f"--workdir={tmp_path}", "--config.training.num_steps=100000")
    while not steps(tmp_path):
        time.sleep(0.01)
    for _ in range(50):  # until both have come between two steps
        process.send_signal(signal.SIGINT)
        if process.poll() is not None:
            break
        time.sleep(0.001)
    process.communicate(timeout=60)
    assert process.returncode in (130, 75)
