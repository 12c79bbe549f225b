"""Several processes train one model: the same losses, one checkpoint, one end."""

import contextlib
import json
import os
import re
import signal
import socket
import time

import jax
import numpy as np
import pytest
from conftest import REPO, TINY, start
from test_resume import state, steps

import ddpm
from ddpm import sharding
from ddpm.distribution import HEARTBEAT, TRIPLE, how_started
from ddpm.errors import InputError
from ddpm.train import train
from ddpm.training import memory
from ddpm.training.state import State

ARGUMENTS = [*TINY, "--config.model.unet.channels=32", "--config.training.num_steps=20"]
LONG = [*ARGUMENTS, "--config.training.num_steps=100000"]


@contextlib.contextmanager
def together(processes, *arguments, devices=1, folders=None):
    """Starts so many processes that know of each other, in folders of their own if these are given; none outlives the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(processes):
        told = dict(zip(TRIPLE, (f"127.0.0.1:{port}", str(processes), str(number)), strict=True))
        started.append(start(*arguments, devices=devices, environment=told, cwd=folders[number] if folders else REPO))
    try:
        yield started
    finally:
        for process in started:
            process.kill()


def ends(processes, timeout=300):
    """(exit code, standard output but for what Gloo writes to it, standard error) of each."""
    said = [process.communicate(timeout=timeout) for process in processes]
    return [
        (process.returncode, re.sub(r"\[Gloo\].*\n", "", out), err)
        for process, (out, err) in zip(processes, said, strict=True)
    ]


def reaches(workdir, step, timeout=300):
    """Waits until there is a checkpoint of a step or a later one."""
    limit = time.monotonic() + timeout
    while max(steps(workdir), default=0) < step:
        assert time.monotonic() < limit
        time.sleep(0.01)


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of a run of one process."""
    workdir = tmp_path_factory.mktemp("alone")
    with together(1, *ARGUMENTS, f"--workdir={workdir}") as processes:
        ((code, _, err),) = ends(processes)
    assert code == 0, err
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "fsdp", "tensor"), [(1, 8, 4, 2), (2, 2, 4, 1), (4, 1, 2, 2)], ids=["1x8", "2x2", "4x1"]
)
def test_any_number_of_processes_and_devices_has_the_same_losses(tmp_path, alone, processes, devices, fsdp, tensor):
    drawing = ("--config.training.evaluate_every=20", "--config.training.sample_every=20")
    large = ("--config.sampler.batch_size=128", "--config.evaluation.num=1000", "--config.training.save_every=20")
    laid = (f"--config.mesh.fsdp={fsdp}", f"--config.mesh.tensor={tensor}")
    arguments = (*ARGUMENTS, *laid, *drawing, *large, f"--workdir={tmp_path}", f"--expect_processes={processes}")
    with together(processes, *arguments, devices=devices) as started:
        (code, out, err), *others = ends(started)
    assert code == 0 and all(end[:2] == (0, "") for end in others), (err, others)
    assert "memory " in out and (tmp_path / "samples" / "00000020.png").exists()
    assert (tmp_path / "evaluation.jsonl").read_text().count("\n") == 1
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=1e-5)
    here, there = ddpm.load(alone), ddpm.load(tmp_path)
    for a, b in zip(jax.tree.leaves(here.params), jax.tree.leaves(there.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    images = [run.sample(4, sampler="ddim", num_steps=3).astype(int) for run in (here, there)]
    assert np.abs(images[0] - images[1]).max() <= 1
    if processes > 1:
        check_shares(there, processes)


def check_shares(run, processes):
    """Modes sample and eval: several processes draw a share each of what one draws, and none is drawn again."""
    for mode in ("sample", "eval"):
        with together(processes, f"--mode={mode}", "--num=1000", f"--workdir={run.workdir}") as started:
            (code, out, err), *others = ends(started)
        assert code == 0 and all(end[:2] == (0, "") for end in others), (err, others)
        share = 1000 // processes
        assert f"{share}/{share} images, the share of the first of {processes} processes" in out or mode == "eval"
    (file,) = (run.workdir / "samples").glob("*.npz")
    drawn, alone = np.load(file)["arr_0"], run.sample(1000)
    assert drawn.shape == (1000, 8, 8, 1) and np.abs(drawn.astype(int) - alone.astype(int)).max() <= 1
    _, record = map(json.loads, (run.workdir / "evaluation.jsonl").read_text().splitlines())  # the first while training
    assert record["provenance"]["generated"]["num"] == 1000
    parts = sorted((run.workdir / "evaluation" / "samples").glob("*/*.npz"))
    firsts = {int(path.stem.split("-")[0]) for path in parts}
    assert {1000 * k // processes for k in range(processes)} <= firsts
    before = {path: path.stat().st_mtime_ns for path in parts}
    assert run.evaluate()["figures"] == record["figures"]
    assert before == {path: path.stat().st_mtime_ns for path in parts}


@pytest.mark.slow
def test_sigterm_to_one_saves_the_same_step_of_all_and_the_same_command_goes_on_bit_for_bit(tmp_path):
    workdirs = tmp_path / "whole", tmp_path / "broken"
    fsdp = ("--config.mesh.fsdp=2", "--config.training.save_every=1000")
    with together(2, *LONG, *fsdp, "--config.training.save_every=5", f"--workdir={workdirs[1]}") as processes:
        reaches(workdirs[1], 5)
        processes[1].send_signal(signal.SIGTERM)
        found = ends(processes)
    assert [code for code, *_ in found] == [75, 75], found
    saved = max(steps(workdirs[1]))
    assert f"step {saved} is saved" in found[0][1]
    end = f"--config.training.num_steps={saved + 10}"
    for workdir in workdirs:
        with together(2, *LONG, *fsdp, end, f"--workdir={workdir}") as processes:
            found = ends(processes)
        assert [code for code, *_ in found] == [0, 0], found
    assert f"resumed at step {saved}" in found[0][1]
    a, b = (state(workdir, saved + 10) for workdir in workdirs)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.slow
def test_processes_with_workdirs_of_their_own_are_told_before_they_train(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "experiments").symlink_to(REPO / "experiments")
    with together(2, *ARGUMENTS, "--workdir=run", folders=folders) as processes:
        found = ends(processes)
    assert {code for code, *_ in found} <= {1, 2}
    assert (
        "run of process 1 (" in found[1][2]
        and ") is not that of the first: give a --workdir on a disk that" in found[1][2]
    )
    assert not steps(tmp_path / "a" / "run")


@pytest.mark.slow
def test_one_that_is_killed_ends_the_others_soon(tmp_path):
    with together(2, *LONG, f"--workdir={tmp_path}") as processes:
        reaches(tmp_path, 5)
        processes[1].kill()
        began = time.monotonic()
        code, _, err = ends(processes)[0]
    assert code not in (0, 75) and time.monotonic() - began < HEARTBEAT + 30, err


@pytest.mark.slow
def test_a_checkpoint_that_is_broken_is_passed_over_by_all(tmp_path):
    arguments = [*ARGUMENTS, "--config.mesh.fsdp=2", f"--workdir={tmp_path}"]
    with together(2, *arguments) as processes:
        assert [code for code, *_ in ends(processes)] == [0, 0]
    newest = tmp_path / "checkpoints" / "20" / "state"
    for file in (path for path in newest.rglob("*") if path.parent.name == "d"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with together(2, *arguments) as processes:
        found = ends(processes)
    assert [code for code, *_ in found] == [0, 0], found
    assert "resumed at step 15" in found[0][1] and "checkpoint 20 is broken" in found[0][2]
    assert [path.name for path in (tmp_path / "broken_checkpoints").iterdir()] == ["20.0"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (dict(JAX_NUM_PROCESSES="2"), "JAX_COORDINATOR_ADDRESS = None, JAX_NUM_PROCESSES = 2, JAX_PROCESS_ID = None: "),
        (dict(zip(TRIPLE, ("here:1", "2", "2"), strict=True)), "JAX_COORDINATOR_ADDRESS = here:1, "),
        (dict(OMPI_COMM_WORLD_SIZE="2"), "Open MPI 5 says too little: give JAX_COORDINATOR_ADDRESS = HOST:PORT of "),
    ],
)
def test_an_environment_that_says_too_little_is_told_of(environment, message):
    with pytest.raises(InputError) as caught:
        how_started(environment)
    assert str(caught.value).startswith(message)


OPEN_MPI = dict(
    OMPI_COMM_WORLD_SIZE="8",
    OMPI_COMM_WORLD_LOCAL_SIZE="4",
    OMPI_COMM_WORLD_LOCAL_RANK="3",
    OMPI_MCA_orte_hnp_uri="any",
)
SLURM = dict(SLURM_PROCID="5", SLURM_STEP_NUM_TASKS="6", SLURM_LOCALID="1", SLURM_NODEID="1")


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, None),
        (dict(SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="1"), None),
        (dict(SLURM_NTASKS="6"), None),  # the body of a batch script
        (SLURM | dict(SLURM_STEP_TASKS_PER_NODE="3(x2)"), {}),
        (SLURM | dict(SLURM_STEP_TASKS_PER_NODE="4,2", CUDA_VISIBLE_DEVICES="0,1"), {"local_device_ids": [1]}),
        (SLURM | dict(SLURM_STEP_TASKS_PER_NODE="4,2", CUDA_VISIBLE_DEVICES="3"), {"local_device_ids": [0]}),
        (SLURM | dict(SLURM_STEP_TASKS_PER_NODE="4,2", CUDA_VISIBLE_DEVICES="0,1,2,3"), {"local_device_ids": [2, 3]}),
        (SLURM | dict(CUDA_VISIBLE_DEVICES="0,1", JAX_LOCAL_DEVICE_IDS="0"), {}),
        (SLURM | OPEN_MPI | dict(CUDA_VISIBLE_DEVICES="0,1,2,3"), {"local_device_ids": [3]}),  # mpirun in an allocation
        (
            dict(zip(TRIPLE, ("here:1", "2", "1"), strict=True)),
            dict(coordinator_address="here:1", num_processes=2, process_id=1),
        ),
        (dict(zip(TRIPLE, ("here:1", "1", "0"), strict=True)), None),
    ],
)
def test_processes_know_how_they_were_started(environment, arguments):
    assert how_started(environment | {"JAX_PLATFORMS": "cpu"}) == arguments


def test_another_number_of_processes_than_expected_is_a_mistake(tmp_path):
    process = start(*ARGUMENTS, f"--workdir={tmp_path}", "--expect_processes=2")
    ((code, _, err),) = ends([process])
    assert code == 2 and "error: --expect_processes 2, but this is one of 1: start it by srun" in err
    assert not os.listdir(tmp_path)


def test_arrays_of_the_state_are_split_by_their_shape():
    mesh = sharding.training_mesh(fsdp=2, tensor=2)
    assert dict(mesh.shape) == dict(data=2, fsdp=2, tensor=2)
    spec = lambda *shape: tuple(sharding.of_state(mesh, shape).spec)  # noqa: E731
    assert spec(3, 3, 64, 128) == (None, None, "fsdp", "tensor")
    assert spec(3, 3, 64, 129) == (None, None, "fsdp", None)
    assert spec(8192) == ("fsdp",)
    assert spec(3, 3, 7, 129) == (None,) * 4
    assert spec(64) == (None,) and spec() == ()
    assert sharding.split(mesh).spec == jax.sharding.PartitionSpec(("data", "fsdp"))
    sharding.check_divisible("batch", 12, mesh)
    with pytest.raises(InputError, match="batch = 10 does not split evenly over 4 devices: use a multiple of 4"):
        sharding.check_divisible("batch", 10, mesh)
    with pytest.raises(InputError, match="mesh.fsdp = 3 times mesh.tensor = 1 does not divide the 8 devices"):
        sharding.training_mesh(fsdp=3)


def test_what_a_device_needs_is_counted_and_refused_where_it_is_not_there():
    mesh = sharding.training_mesh(fsdp=8)
    leaf = lambda *shape: jax.ShapeDtypeStruct(shape, "float32", sharding=sharding.of_state(mesh, shape))  # noqa: E731
    weights, scalar = leaf(64, 1024), leaf()
    needed = memory.needs(State(scalar, weights, weights, (weights, weights), scalar), [leaf(100, 8)], 1000)
    share = 4 * 64 * 1024 // 8
    assert needed == dict(parameters=share, EMA=share, optimizer=2 * share + 8, data=3200, activations=1000)
    assert memory.check(needed, None).startswith("135 kB on each device: parameters 32.8 kB, EMA 32.8 kB, ")
    with pytest.raises(
        InputError, match="training needs 135 kB of 100 kB on each device .*: take a smaller training.ba"
    ):
        memory.check(needed, 100_000)


@pytest.mark.slow
@pytest.mark.parametrize(("there", "activations"), [(10_000, "0 bytes"), (300_000, r"[1-9][\d.]* [kM]B")])
def test_a_run_that_does_not_fit_is_refused_before_its_arrays_are_made_or_before_a_step(
    tiny, tmp_path, monkeypatch, there, activations
):
    monkeypatch.setattr(memory, "available", lambda: there)
    with pytest.raises(InputError, match=f"^training needs .* on each device .*, activations {activations}"):
        train(tiny, tmp_path, accept_changes=False)
    assert not list((tmp_path / "checkpoints").glob("*"))
