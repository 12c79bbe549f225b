"""Sweeps: what is trained, passed over, refused and listed, with a training that only leaves what one does."""

import json
import re
import subprocess
import sys

import pytest
from conftest import REPO, TINY, run
from report_runs import write_run

from ddpm import sweep, train_many
from ddpm.errors import InputError, MachineError
from ddpm.report.collect import collect

RATES = "optimizer.learning_rate=1e-4,2e-4 seed=0..1"
DIGITS = "experiments/digits.py"


@pytest.fixture
def trained(monkeypatch):
    """Replaces training; holds (workdir, learning rate, seed) of each, and what a workdir's name makes it return or raise."""

    class Trained(list):
        ends = {}  # noqa: RUF012

    made = Trained()
    made.ends = {}

    def train(config, workdir, *, accept_changes):
        made.append((workdir.name, config.optimizer.learning_rate, config.seed))
        end = made.ends.get(workdir.name[0], 0)
        steps = config.training.num_steps if end == 0 else 3
        leave(workdir, steps, finished=end == 0)
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(sweep, "train", train)
    monkeypatch.setattr(train_many, "train", train)
    return made


def leave(workdir, step, *, finished):
    (workdir / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").write_text(json.dumps({"step": step, "loss": step / 8}) + "\n")
    if finished:
        (workdir / "loss.png").touch()


def many(config, workdir, text=RATES, index=None, listing=False, experiment=DIGITS, **more):
    flags = dict(metric=None, trials=None, accept_changes=False) | more
    return train_many.train_many(config, experiment, workdir, text=text, index=index, listing=listing, **flags)


NAMES = [f"{i}-learning_rate_0.000{1 + i // 2}-seed_{i % 2}" for i in range(4)]


def test_an_index_trains_one_run(tiny, tmp_path, trained):
    assert many(tiny, tmp_path / "s", index=2) == 0
    assert trained == [(NAMES[2], 2e-4, 0)]
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())[2] == {"optimizer.learning_rate": 2e-4, "seed": 0}


def test_without_an_index_all_are_trained_but_the_finished(tiny, tmp_path, trained, capsys):
    assert many(tiny, tmp_path, index=1) == 0
    assert many(tiny, tmp_path) == 0
    assert [name for name, *_ in trained] == [NAMES[1], NAMES[0], NAMES[2], NAMES[3]]
    assert f"run 1 of 0..3 is finished: {tmp_path / NAMES[1]}\n" in capsys.readouterr().out
    assert many(tiny, tmp_path) == 0 and len(trained) == 4


def test_a_run_that_is_not_finished_goes_on(tiny, tmp_path, trained):
    leave(tmp_path / NAMES[0], 3, finished=False)
    leave(tmp_path / NAMES[1], 6, finished=False)  # all steps, but killed while it drew its last samples
    assert many(tiny, tmp_path, index=0) == 0 and many(tiny, tmp_path, index=1) == 0
    assert [name for name, *_ in trained] == NAMES[:2]
    tiny.training.num_steps = 7
    assert many(tiny, tmp_path, index=0) == 0 and len(trained) == 3


def test_an_interruption_ends_the_sweep(tiny, tmp_path, trained):
    trained.ends["1"] = 75
    assert many(tiny, tmp_path) == 75
    assert [name for name, *_ in trained] == NAMES[:2]


def test_a_sweep_of_which_the_machine_fails_a_run_may_be_tried_again(tiny, tmp_path, trained):
    trained.ends["1"] = MachineError("the disk is full")
    with pytest.raises(MachineError, match="^1 of 4 runs failed, the first of them run 1: the disk is full$"):
        many(tiny, tmp_path)


def test_a_run_that_fails_does_not_lose_the_others(tiny, tmp_path, trained, caplog):
    trained.ends["1"] = InputError("loss or gradient was not finite.")
    with pytest.raises(InputError) as error:
        many(tiny, tmp_path)
    assert str(error.value) == "1 of 4 runs failed, the first of them run 1: loss or gradient was not finite."
    assert [name for name, *_ in trained] == NAMES and caplog.messages == ["run 1: loss or gradient was not finite."]
    with pytest.raises(InputError) as error:
        many(tiny, tmp_path, index=1)
    assert str(error.value) == "loss or gradient was not finite."


def test_the_list_tells_how_far_each_run_is(tiny, tmp_path, trained, capsys):
    assert many(tiny, None, listing=True) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{i}  optimizer.learning_rate=0.000{1 + i // 2} seed={i % 2}" for i in range(4)
    ]
    trained.ends["1"] = 75
    many(tiny, tmp_path)
    record = {"figures": {"fd": 1.25}, "provenance": {"generated": {}}}
    (tmp_path / NAMES[0] / "evaluation.jsonl").write_text(json.dumps(record) + "\n")
    capsys.readouterr()
    assert many(tiny, tmp_path, listing=True) == 0
    assert [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()] == [
        ["0", "optimizer.learning_rate=0.0001 seed=0", "finished", "loss 0.75", "fd 1.25"],
        ["1", "optimizer.learning_rate=0.0001 seed=1", "step 3 of 6", "loss 0.375"],
        ["2", "optimizer.learning_rate=0.0002 seed=0", "not started"],
        ["3", "optimizer.learning_rate=0.0002 seed=1", "not started"],
    ]


def test_an_experiment_that_has_a_sweep_is_one(tiny, tmp_path, trained):
    file = tmp_path / "rates.py"
    file.write_text("def sweep(add):\n    add({'seed': 5})\n    add({'seed': 6})\n")
    assert many(tiny, tmp_path / "s", text=None, experiment=str(file)) == 0
    assert [seed for *_, seed in trained] == [5, 6]
    assert many(tiny, tmp_path / "t", text="seed=7", experiment=str(file)) == 0
    assert [seed for *_, seed in trained] == [5, 6, 7]


def test_without_a_sweep_one_run_is_trained_in_the_workdir(tiny, tmp_path, trained):
    assert many(tiny, tmp_path / "a", text=None) == 0
    assert trained == [("a", 2e-3, 0)] and not (tmp_path / "a" / "sweep.json").exists()


def test_what_does_not_go_together_is_refused(tiny, tmp_path, trained):
    def refused(message, workdir=tmp_path, config=tiny, **flags):
        with pytest.raises(InputError) as error:
            many(config, workdir, **flags)
        assert str(error.value) == message

    refused("--index 4 is not in 0..3: the sweep has 4 runs, see --list.", index=4)
    refused(f"--index needs --sweep, or a function sweep(add) in {DIGITS}.", text=None, index=0)
    refused(f"--list needs --sweep, or a function sweep(add) in {DIGITS}.", text=None, listing=True)
    refused("--mode train needs --workdir, such as --workdir runs/digits.", workdir=None)
    refused("--trials does nothing without --search.", trials=3)
    refused("--sweep and --index do nothing beside --search.", metric="loss")
    assert not trained and not list(tmp_path.iterdir())  # nothing is made before the mistake is found
    many(tiny, tmp_path, index=0)
    other = (
        f"{tmp_path} holds another sweep of 4 runs; run 1: optimizer.learning_rate=0.0001 seed=1 there, none here. "
        "Give the sweep it was begun with, or another --workdir."
    )
    refused(other, text="optimizer.learning_rate=1e-4 seed=0", index=0)
    refused(other, text="optimizer.learning_rate=1e-4 seed=0", listing=True)
    refused(f"{tmp_path} holds many runs: give --sweep to go on with them, or another --workdir.", text=None)
    inner = tmp_path / NAMES[0]
    refused(f"{inner} holds a run itself: give what makes many runs a --workdir of its own.", workdir=inner)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "optuna.log").touch()
    refused(f"{tmp_path / 'x'} holds a search: give the sweep a --workdir of its own.", workdir=tmp_path / "x")


def test_jobs_that_begin_at_once_agree(tiny, tmp_path):
    code = (
        "import sys, pathlib\nfrom ddpm import sweep\n"
        "sweep._keep(pathlib.Path(sys.argv[1]), [{'seed': seed} for seed in range(int(sys.argv[2]))])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    jobs = [subprocess.Popen([*command, "300"], cwd=REPO) for _ in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["sweep.json"]
    assert len(json.loads((tmp_path / "s" / "sweep.json").read_text())) == 300


def test_a_report_of_a_sweep_is_of_its_runs(tmp_path):
    for number, rate in enumerate((1e-4, 2e-4)):
        write_run(tmp_path / "s" / f"{number}-rate", steps=(10,), optimizer__learning_rate=rate)
    (tmp_path / "s" / "sweep.json").write_text("[]")
    (tmp_path / "s" / "alive").mkdir()
    runs = collect([tmp_path / "s"])
    assert [read.name for read in runs] == ["0-rate", "1-rate"]
    assert [read.config["optimizer"]["learning_rate"] for read in runs] == [1e-4, 2e-4]
    write_run(tmp_path / "a", steps=(10,))
    assert [read.name for read in collect([tmp_path / "a", tmp_path / "s"])] == ["a", "s/0-rate", "s/1-rate"]
    assert [read.name for read in collect([tmp_path / "s" / "0-rate"])] == ["0-rate"]


@pytest.mark.slow
def test_the_command_trains_lists_and_reports_a_sweep(tmp_path):
    flags = [*TINY, "--config.training.num_steps=5", "--sweep=seed=0..1", f"--workdir={tmp_path}"]
    code, out, err = run(*flags, "--index=1")
    assert code == 0 and "run 1 of 0..1: seed=1" in out, err
    code, out, err = run(*flags)
    assert code == 0 and f"run 1 of 0..1 is finished: {tmp_path}/1-seed_1" in out, err
    code, out, err = run(*flags, "--list")
    assert code == 0 and [line.split()[:3] for line in out.splitlines()] == [
        ["0", "seed=0", "finished"], ["1", "seed=1", "finished"]
    ], err  # fmt: skip
    code, out, err = run("--mode=report", f"--workdir={tmp_path}")
    assert (code, out) == (0, f"report    {tmp_path}/report.html\n"), err
    assert "1-seed_1" in (tmp_path / "report.html").read_text()
    code, out, err = run(*flags, "--index=2")
    assert (code, err) == (2, "error: --index 2 is not in 0..1: the sweep has 2 runs, see --list.\n")
