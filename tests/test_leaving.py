"""How a run leaves: soon after a signal, with one line after an error, and with nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPO, TINY, run, start

pytestmark = pytest.mark.slow
LONG = ("--config.training.sample_every=4", "--config.sampler.num_steps=1000", "--config.sampler.batch_size=8")


@pytest.mark.parametrize("during", ["samples", "figures"])
def test_a_signal_while_samples_are_drawn_is_heeded_and_the_step_is_on_disk_before(tmp_path, during):
    evaluated = (
        "--config.training.evaluate_every=4",
        "--config.evaluation.num=8000",
        "--config.evaluation.num_steps=200",
    )
    process = start(*TINY, *(LONG if during == "samples" else evaluated), f"--workdir={tmp_path}")
    limit = time.monotonic() + 300
    while not (tmp_path / "checkpoints" / "4").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    assert time.monotonic() - began < 60  # a batch, not all of them: minutes on these devices


def test_a_run_that_stops_for_what_is_not_finite_says_so_in_one_line_and_its_last_checkpoint_is_whole(tmp_path):
    code, _, err = run(
        *TINY, "--config.optimizer.learning_rate=1e15", "--config.optimizer.warmup_steps=0",
        "--config.training.save_every=1", "--config.training.max_skipped=5", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert code == 2 and "batches in a row" in err and "Traceback" not in err
    assert all(path.name.isdigit() for path in (tmp_path / "checkpoints").iterdir())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["skipped"] for row in rows) >= 5


def test_a_truncated_checkpoint_is_told_of_in_one_line(tmp_path):
    assert run(*TINY, "--config.training.num_steps=20", f"--workdir={tmp_path}")[0] == 0
    for path in (tmp_path / "checkpoints" / "20" / "state").rglob("d/*"):  # which of them holds what varies
        os.truncate(path, min(100, path.stat().st_size))
    code = f"import ddpm, time; print(ddpm.load({str(tmp_path)!r}).step); time.sleep(1)"
    for _ in range(3):  # what is left over of a read comes late, and not always
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ran.stdout == "15\n" and "Traceback" not in ran.stderr, ran.stderr
        assert ran.stderr.count("\n") == 1 and "checkpoint 20 is broken" in ran.stderr


@pytest.mark.parametrize(
    ("fails", "code", "said"),
    [
        ("sys.exit(leave(2))", 2, ""),
        ("sys.exit(leave(75))", 75, ""),
        ("raise ValueError('what went wrong')", 1, "ValueError: what went wrong"),
    ],
)
def test_a_command_that_failed_leaves_whatever_its_threads_wait_for(fails, code, said):
    script = (
        "import sys, threading\nfrom ddpm import distribution\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        f"print('written')\nwith distribution.leaving() as leave:\n    {fails}\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (code, "written\n") and said in ran.stderr
