import contextlib
import dataclasses
import errno
import gc
import itertools
import json
import os
import pathlib
import subprocess
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm import sharding
from ddpm.errors import InputError, MachineError
from ddpm.training import checkpoint
from ddpm.training.checkpoint import Checkpoints
from ddpm.training.state import init_state

# Orbax leaves coroutines behind when a read fails; what they say when they are collected is no warning of ours.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


def state_of(value, size=4096):
    params = {"layer": {"kernel": jax.random.normal(jax.random.key(value), (size, 8)), "bias": jnp.arange(8.0)}}
    return init_state(params, optax.adam(1e-3))


def abstract(state, sharded=None):
    sharded = sharded or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharded), state)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(vars(a)), jax.device_get(vars(b)))


def written(workdir, steps=(1, 2), size=4096):
    checkpoints = Checkpoints(workdir, keep=3, keep_every=0)
    for step in steps:
        checkpoints.save(step, state_of(step, size), {"config": {"seed": step}, "facts": {"count": 3}})
    checkpoints.finish()
    return workdir / "checkpoints"


def restored(workdir, size=4096):
    checkpoints = Checkpoints(workdir, keep=3, keep_every=0)
    return checkpoints.restore(abstract(state_of(0, size)))


def array_files(directory, step):
    files = [
        path for path in (directory / str(step) / "state").rglob("*") if path.is_file() and path.parent.name == "d"
    ]
    return sorted(files, key=lambda path: path.stat().st_size)


def flip_byte(directory, step):
    """Flips a byte of the array data on disk such that Orbax reads it without a word."""
    import tensorstore

    path = directory / str(step) / "state"
    store = tensorstore.open(
        {
            "driver": "zarr",
            "kvstore": {"driver": "ocdbt", "base": f"file://{path}/", "path": "params.layer.kernel/"},
        }
    ).result()
    store[3, 3] = np.asarray(store[3, 3].read().result() + 1e-3, np.float32)


def test_a_state_comes_back_bit_for_bit_with_its_record(tmp_path):
    directory = written(tmp_path)
    step, state = restored(tmp_path)
    assert step == 2
    same(state, state_of(2))
    record = checkpoint.read_record(directory, 2)
    assert record["config"] == {"seed": 2} and record["facts"] == {"count": 3} and record["step"] == 2
    assert record["versions"]["jax"] == jax.__version__


def test_a_state_written_on_one_device_comes_back_on_eight(tmp_path):
    written(tmp_path)
    sharded = sharding.replicated(sharding.data_mesh())
    _, state = Checkpoints(tmp_path, keep=3, keep_every=0).restore(abstract(state_of(0), sharded))
    same(state, state_of(2))
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {sharded}


def test_ema_params_are_read_without_model_or_optimizer(tmp_path):
    params = checkpoint.read_ema_params(written(tmp_path), 2)
    assert isinstance(params["layer"]["kernel"], np.ndarray)
    np.testing.assert_array_equal(params["layer"]["kernel"], state_of(2).ema_params["layer"]["kernel"])


def test_no_checkpoint_is_none(tmp_path):
    assert restored(tmp_path) is None


def truncate(directory, step):
    for file in array_files(directory, step):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 9])


def delete_arrays(directory, step):
    for file in array_files(directory, step):
        file.unlink()


def cut_record(directory, step):
    (directory / str(step) / "record" / "metadata").write_text('{"config": ')


def delete_manifest(directory, step):
    (directory / str(step) / "state" / "manifest.ocdbt").unlink()


def empty(directory, step):
    subprocess.run(["rm", "-r", *map(str, (directory / str(step)).iterdir())], check=True)


DAMAGE = [flip_byte, truncate, delete_arrays, cut_record, delete_manifest, empty]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_newest_checkpoint_is_named_set_aside_and_the_one_before_used(tmp_path, damage, caplog):
    directory = written(tmp_path)
    damage(directory, 2)
    step, state = restored(tmp_path)
    assert step == 1
    same(state, state_of(1))
    assert "checkpoint 2 is broken" in caplog.text and "broken_checkpoints/2.0" in caplog.text
    assert checkpoint.steps_in(directory) == [1] and (tmp_path / "broken_checkpoints" / "2.0").exists()
    written(tmp_path, steps=(2,))  # the step can be written again
    assert restored(tmp_path)[0] == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_broken_ema_params_are_noticed(tmp_path, damage):
    directory = written(tmp_path)
    if damage is flip_byte:
        record = directory / "2" / "record" / "metadata"
        values = json.loads(record.read_text())
        values["leaves"]["ema_params/layer/kernel"]["crc32"] ^= 1
        record.write_text(json.dumps(values))
    else:
        damage(directory, 2)
    with pytest.raises(checkpoint.Broken):
        checkpoint.read_ema_params(directory, 2)


def test_half_written_checkpoints_are_passed_over(tmp_path):
    directory = written(tmp_path)
    (directory / "2").rename(directory / "2.orbax-checkpoint-tmp")
    assert checkpoint.steps_in(directory) == [1]
    assert restored(tmp_path)[0] == 1


def test_when_all_are_broken_the_run_does_not_silently_start_anew(tmp_path):
    directory = written(tmp_path)
    for step in (1, 2):
        truncate(directory, step)
    with pytest.raises(InputError, match=r"none of the checkpoints \[2, 1\] in .* is intact; they were set aside."):
        restored(tmp_path)


def test_another_model_is_named_by_its_first_leaf(tmp_path):
    written(tmp_path)
    with pytest.raises(InputError) as caught:
        restored(tmp_path, size=32)
    assert str(caught.value) == (
        "checkpoint 2 holds {'shape': [4096, 8], 'dtype': 'float32'} at ema_params/layer/kernel, this experiment "
        "{'shape': [32, 8], 'dtype': 'float32'}: they are different models or optimizers. "
        "Use the run's own settings, or another --workdir."
    )
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [1, 2]


def test_the_newest_and_every_so_many_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_every=3)
    for step in range(1, 8):
        checkpoints.save(step, state_of(step), {})
    checkpoints.finish()
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [3, 6, 7]


def test_saving_a_step_twice_writes_it_once(tmp_path):
    directory = written(tmp_path, steps=(1, 1))
    assert checkpoint.steps_in(directory) == [1]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(small_disk: pathlib.Path, foreseen, monkeypatch):
    if not foreseen:  # a quota, or another program that fills the disk meanwhile
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e12))
    checkpoints = Checkpoints(small_disk, keep=2, keep_every=0)
    checkpoints.save(1, state_of(1), {})
    with pytest.raises(InputError) as caught:
        for step in range(2, 20):
            noise = jax.random.normal(jax.random.key(step), (20_000, 8))  # 2.5 MB with EMA and moments
            state = init_state({"layer": {"kernel": noise}}, optax.adam(1e-3))
            checkpoints.save(step, state, {})
        checkpoints.finish()
    kept = max(checkpoint.steps_in(small_disk / "checkpoints"))
    assert str(caught.value) == (
        f"the newest checkpoint could not be written to {small_disk}/checkpoints (the disk is full); checkpoint {kept} is kept. "
        "Free some space and run the same command: it goes on from there."
    )
    assert kept >= 1 and checkpoint.read_ema_params(small_disk / "checkpoints", kept)


def test_a_write_that_fails_while_a_run_ends_for_another_reason_is_told_of_and_hides_nothing(
    tmp_path, monkeypatch, caplog
):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=0)

    def fails():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", fails)
    monkeypatch.setattr(checkpoints._manager, "close", lambda: None)
    with pytest.raises(InputError, match="^the loss$"), contextlib.ExitStack() as closing:
        closing.callback(checkpoints.close)
        raise InputError("the loss")
    assert "/checkpoints (the disk is full); there is no earlier one. Free some space and run" in caplog.text


def test_a_store_that_throws_is_named_with_what_is_kept(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_every=0)
    checkpoints.save(1, state_of(1), {})
    checkpoints.finish()

    def fails(*_, **__):
        raise RuntimeError("503 Service Unavailable\nand more")

    monkeypatch.setattr(checkpoints._manager, "save", fails)
    with pytest.raises(InputError) as caught:
        checkpoints.save(2, state_of(2), {})
    assert str(caught.value) == (
        f"the newest checkpoint could not be written to {tmp_path}/checkpoints (RuntimeError: 503 Service Unavailable); "
        "checkpoint 1 is kept. Mend that and run the same command: it goes on from there."
    )


@pytest.mark.parametrize("part", ["params", "ema_params"])
def test_parameters_that_are_not_finite_are_never_written(tmp_path, part):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_every=0)
    checkpoints.save(1, state_of(1), {})
    good = state_of(2)
    bad = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), getattr(good, part))
    with pytest.raises(
        InputError, match=rf"^at step 2 parameters are not finite here: {part}/.*; no checkpoint was wr"
    ):
        checkpoints.save(2, dataclasses.replace(good, **{part: bad}), {})
    checkpoints.finish()
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [1]


def test_a_clock_that_jumps_ends_no_write(tmp_path, monkeypatch):
    checkpoints, hours = Checkpoints(tmp_path, keep=2, keep_every=0), itertools.count()
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    checkpoints.save(1, state_of(1), {})
    checkpoints.finish()
    assert checkpoint.read_ema_params(tmp_path / "checkpoints", 1)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("PERMISSION_DENIED: Error reading gs://bucket/run"),
        ValueError('Error opening "zarr" driver: UNAVAILABLE: Connect error'),
        ValueError('Failed to open: "x" [OS error 5: EIO Input/output error]'),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_a_store_that_cannot_be_read_for_now_sets_no_checkpoint_aside(tmp_path, monkeypatch, error):
    checkpoints, state = Checkpoints(tmp_path, keep=2, keep_every=0), state_of(1)
    checkpoints.save(1, state, {})
    checkpoints.finish()

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(checkpoint.ocp.PyTreeCheckpointHandler, "restore", fails)
    with pytest.raises(MachineError, match="/checkpoints/1 cannot be read .*. Mend that and run the same command"):
        checkpoints.restore(abstract(state))
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [1] and not (tmp_path / "broken_checkpoints").exists()
