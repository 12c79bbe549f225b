"""Two commands do not train in one workdir at once."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest
from conftest import REPO

from ddpm.errors import MachineError
from ddpm.train import train
from ddpm.training.lock import locked


def test_a_workdir_is_held_by_one_until_its_block_ends(tmp_path):
    told = f"^process {os.getpid()} on .* trains in {tmp_path}: wait for its end, "
    with locked(tmp_path), pytest.raises(MachineError, match=told), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_process_that_is_killed_lets_go_of_its_workdir(tmp_path):
    script = "import pathlib, sys\nfrom ddpm.training.lock import locked\n"
    script += "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=REPO, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(MachineError, match=f"^process {process.pid} on "), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path):
        pass


def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch, caplog):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        assert caplog.messages == [
            f"{tmp_path} cannot be locked (No locks available): let no other command train in it"
        ]


def test_training_where_another_trains_leaves_its_run_alone(tiny, tmp_path):
    with locked(tmp_path), pytest.raises(MachineError, match="trains in "):
        train(tiny, tmp_path, accept_changes=False)
    assert [path.name for path in tmp_path.iterdir()] == [".training"]
    tiny.training.num_steps = 1
    assert train(tiny, tmp_path, accept_changes=False) == 0
