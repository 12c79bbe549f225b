"""The scripts of launch/slurm on a cluster of two nodes: the same parameters through a signal, a lost process, an array."""

import os
import pathlib
import re
import signal
import sys
import time

import numpy as np
import pytest
import slurm
from conftest import REPO, TINY, run
from test_distribution import reaches
from test_resume import state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not slurm.is_here(), reason="SLURM is not installed, or this user may not start it"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as asked:
        yield asked


@pytest.fixture
def submit(cluster, tmp_path):
    """Hands a script of launch/slurm to the cluster, without its GPUs; returns the job's number."""

    def submitted(script, *arguments, options=("--nodes=2",)):
        here = tmp_path / "script"
        text = re.sub(r"#SBATCH --(gpus|cpus).*\n", "", (REPO / script).read_text())
        here.write_text(re.sub(r"--ntasks-per-node=\d+", "--ntasks-per-node=1", text))
        told = f"PATH={pathlib.Path(sys.executable).parent}:{os.environ['PATH']},JAX_NUM_CPU_DEVICES=1"
        options = (
            *options,
            f"--chdir={REPO}",
            f"--output={tmp_path}/%j.out",
            f"--export=ALL,{told}",
            "--open-mode=append",
        )
        return cluster("sbatch", "--parsable", *options, str(here), *arguments).strip()

    return submitted


def facts(cluster, job):
    return dict(re.findall(r"(\w+)=(\S+)", cluster("scontrol", "show", "job", job)))


def ends(cluster, job, timeout=120):
    """Waits until a job is no longer there, and lets it begin at once where it waits; returns what SLURM says of it."""
    limit = time.monotonic() + timeout
    while (about := facts(cluster, job))["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
        assert time.monotonic() < limit, about
        if about["JobState"] == "PENDING":
            time.sleep(3)  # or the end of its first script is taken for that of the next
            cluster("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
        time.sleep(0.3)
    return about


def process_of(rank, workdir):
    """The number of the process that has a rank of the run in a workdir."""
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words, environment = ((path / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        asked = f"--workdir={workdir}".encode() in words and f"SLURM_PROCID={rank}".encode() in environment
        if asked and words[0].endswith(b"python"):  # not srun, which was told the same
            return int(path.name)
    raise AssertionError(f"no process of rank {rank}")


def test_a_signal_to_one_process_requeues_the_job_which_ends_as_the_uninterrupted_one(cluster, submit, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    job = submit("launch/slurm/train.sbatch", *TINY, f"--workdir={broken}")
    reaches(broken, 5, timeout=90)
    os.kill(process_of(1, broken), signal.SIGTERM)
    about = ends(cluster, job)
    said = (tmp_path / f"{job}.out").read_text()
    assert about["JobState"] == "COMPLETED" and about["Restarts"] == "1", said
    assert "is saved in" in said and "resumed at step" in said and "process 1 of 2" in said
    job = submit("launch/slurm/train.sbatch", *TINY, f"--workdir={whole}")
    assert ends(cluster, job)["JobState"] == "COMPLETED"
    a, b = state(whole, 60), state(broken, 60)
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_a_process_that_is_killed_ends_the_job_at_once_with_a_line(cluster, submit, tmp_path):
    workdir = tmp_path / "killed"
    job = submit("launch/slurm/train.sbatch", *TINY, f"--workdir={workdir}", "--config.training.num_steps=100000")
    reaches(workdir, 5, timeout=90)
    began = time.monotonic()
    os.kill(process_of(1, workdir), signal.SIGKILL)
    about = ends(cluster, job)
    assert about["JobState"] == "FAILED" and time.monotonic() - began < 30
    assert re.search(r"srun: error: 127.0.0.2: task 1: Killed", (tmp_path / f"{job}.out").read_text())


def test_an_array_is_a_sweep_and_its_table_says_so(cluster, submit, tmp_path):
    arguments = [*TINY, "--config.training.num_steps=10", f"--workdir={tmp_path}/sweep", "--sweep=seed=0..1"]
    job = submit("launch/slurm/sweep.sbatch", *arguments, options=("--array=0-1",))
    for number in range(2):
        assert ends(cluster, f"{job}_{number}")["JobState"] == "COMPLETED"
    code, out, err = run(*arguments, "--list")
    assert code == 0, err
    assert [line.split()[:3] for line in out.splitlines()] == [[str(i), f"seed={i}", "finished"] for i in range(2)]
