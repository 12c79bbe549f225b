"""Arrays of a sweep on a workstation, SLURM and Kubernetes: each run is started once, by its number."""

import os
import subprocess

import pytest
import yaml
from conftest import REPO

LAUNCH = REPO / "launch" / "sweep"
FLAGS = ["--config", "a b.py", "--sweep", "seed=0..4 data.flip=True"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Stands for what a site has: programs that note how they are called; a python that lists five runs."""

    def program(name, body):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    note = f'for word in "$@"; do printf "[%s]" "$word"; done > "{tmp_path}/calls/$$"'
    listing = 'case "$*" in *--list) printf "0 a\\n1 b\\n2 c\\n3 d\\n4 e\\n"; exit;; esac'
    (tmp_path / "calls").mkdir()
    program("python", f'{listing}\n{note}\necho " $CUDA_VISIBLE_DEVICES" >> "{tmp_path}/calls/$$"\nexit ${{CODE:-0}}')
    program("srun", '"$@"')
    program("scontrol", f'echo "$@" > "{tmp_path}/requeued"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def calls(site):
    return sorted(file.read_text().strip() for file in (site / "calls").iterdir())


def called(index):
    return f"[-m][ddpm.main][--config][a b.py][--sweep][seed=0..4 data.flip=True][--index][{index}]"


def test_a_workstation_trains_each_run_on_one_of_its_gpus(site):
    assert subprocess.run([LAUNCH / "gpus.sh", "2", *FLAGS]).returncode == 0
    runs, gpus = zip(*(call.rsplit(" ", 1) for call in calls(site)), strict=True)
    assert runs == tuple(called(index) for index in range(5)) and set(gpus) <= {"0", "1"}


def test_a_workstation_starts_nothing_of_a_sweep_that_cannot_be_listed(site):
    (site / "python").write_text("#!/bin/sh\nexit 2\n")
    assert subprocess.run([LAUNCH / "gpus.sh", "2", *FLAGS]).returncode == 2 and not calls(site)


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_task_of_slurm_trains_the_run_of_its_number_and_comes_again_if_it_was_stopped(site, monkeypatch, code):
    for name, value in (("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_JOB_ID", "77"), ("CODE", str(code))):
        monkeypatch.setenv(name, value)
    assert subprocess.run([LAUNCH / "slurm.sh", *FLAGS]).returncode == code
    assert calls(site) == [called(3)]
    assert (site / "requeued").exists() == (code == 75)
    assert code != 75 or (site / "requeued").read_text() == "requeue 77\n"


def test_a_pod_of_kubernetes_trains_the_run_of_its_number(site, monkeypatch):
    job = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["completionMode"] == "Indexed" and job["template"]["spec"]["restartPolicy"] == "Never"
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "4")
    subprocess.run([*container["command"], *FLAGS], check=True)
    assert calls(site) == [called(4)] and container["args"][0] == "--config"
