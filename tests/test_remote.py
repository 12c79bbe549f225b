"""A run in an object store: the same command, through an emulator of Google's."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import REPO, TINY, run, start

from ddpm import remote
from ddpm.errors import InputError

TEN = (*TINY, "--config.training.num_steps=10", "--config.training.evaluate_every=10")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What tells a command of an emulated store with the bucket `ours`; as if each were on a machine of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path_factory.mktemp("store"))
    store = subprocess.Popen([sys.executable, REPO / "tests" / "object_store.py", str(port)], **quiet)
    here = f"http://127.0.0.1:{port}"
    store.stdout.readline()
    told = {"STORAGE_EMULATOR_HOST": here, "TENSORSTORE_GCS_HTTP_URL": here, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any"}
    yield lambda: told | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("machine"))}
    store.kill()
    store.communicate()


def python(script, environment):
    """What a script prints, elsewhere."""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPO,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_run_in_a_bucket_goes_on_on_another_machine_and_opens_there(environment):
    there = "--workdir=gs://ours/runs/a"
    process = start(*TINY, there, "--config.training.num_steps=100000", environment=environment())
    steps = "import ddpm, sys\nfrom ddpm import trained\nprint(max(trained.checkpoints('gs://ours/runs/a')[1]))"
    limit = time.monotonic() + 120
    while True:
        try:
            python(steps, environment())
            break
        except AssertionError:
            assert time.monotonic() < limit and process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    saved = int(python(steps, environment()))
    assert f"step {saved} is saved" in out
    end = (f"--config.training.num_steps={saved + 5}", f"--config.training.evaluate_every={saved + 5}")
    code, out, err = run(*TINY, there, *end, environment=environment())
    assert code == 0 and f"resumed at step {saved} of {saved + 5}" in out, err
    elsewhere = environment()
    code, out, err = run("--mode=sample", there, "--num=4", environment=elsewhere)
    assert code == 0, err
    (copy,) = pathlib.Path(elsewhere["XDG_CACHE_HOME"]).glob("ddpm/workdirs/*/gs/ours/runs/a")
    rows = [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert rows == [*range(5, saved + 1, 5), *range(saved - saved % 5 + 5, saved + 5, 5), saved + 5][: len(rows)]
    assert len((copy / "evaluation.jsonl").read_text().splitlines()) == 1 and not (copy / "checkpoints").exists()
    said = python(
        "import ddpm\nrun = ddpm.load('gs://ours/runs/a')\nprint(run.step, run.sample(2).shape)\n"
        "print([path.name for path in (run.workdir / 'samples').glob('*.npz')])\nrun.evaluate()",
        environment(),
    )
    assert said.startswith(f"{saved + 5} (2, 8, 8, 1)\n['step{saved + 5}_ancestral5_seed0.npz']")
    assert (
        python(
            "import ddpm\nprint(len(open(ddpm.load('gs://ours/runs/a').workdir / 'evaluation.jsonl').readlines()))",
            environment(),
        )
        == "2\n"
    )


@pytest.mark.slow
def test_a_broken_checkpoint_in_a_bucket_is_set_aside(environment):
    there = "--workdir=gs://ours/runs/b"
    assert run(*TEN, there, environment=environment())[0] == 0
    python(
        "from etils import epath\n"
        "for path in epath.Path('gs://ours/runs/b/checkpoints/10/state').glob('*/d/*'):\n    path.write_bytes(b'')",
        environment(),
    )
    code, out, err = run(*TEN, there, environment=environment())
    assert code == 0 and "resumed at step 5 of 10" in out and "checkpoint 10 is broken" in err, err


def test_addresses_that_are_none_and_stores_that_do_not_answer_are_told_of(environment, monkeypatch):
    with pytest.raises(InputError, match="^s4://a/b is no address of a run, such as gs://bucket/run; of other stores"):
        remote.local("s4://a/b")
    with pytest.raises(InputError, match="^gs:// is no address"):
        remote.local("gs://")
    code, _, err = run(*TEN, "--workdir=gs://nobody/run", environment=environment())
    assert code == 74 and "error: gs://nobody/run cannot be read (" in err
    code, _, err = run("--mode=sample", "--workdir=gs://ours/run", "--out=gs://ours/x.npz", environment=environment())
    assert code == 2 and "--out=gs://ours/x.npz: only --workdir may be an address" in err
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match="^gs:// needs the package gcsfs: pip install gcsfs"):
        remote.local("gs://bucket/run")


def test_what_is_no_copy_is_left_alone(tmp_path):
    assert remote.local(tmp_path) == tmp_path and remote.address(tmp_path) is None
    assert remote.checkpoints("somewhere") == pathlib.Path("somewhere").absolute() / "checkpoints"
    remote.push(tmp_path)
    assert not remote.seen_by_all(tmp_path)
