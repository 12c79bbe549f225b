"""Adaptive search: workers share trials, prune, leave and take up, with a training that only writes its figures."""

import json
import math
import os
import re
import signal
import time

import optuna
import pytest
from conftest import TINY, run, start

from ddpm import search, train_many
from ddpm.errors import InputError, MachineError
from ddpm.search import Search

KEY = "optimizer.learning_rate"


def space(trial):
    trial.suggest_float(KEY, 1e-4, 1e-1, log=True)


@pytest.fixture
def trained(monkeypatch, tiny):
    """Replaces training by six steps of figures, best at a rate of 1e-2; holds (run, rate, step it went on from).

    `ends` tells what a training that begins with so many before it does after three steps: returns or raises.
    """
    tiny.optimizer.warmup_steps = 0

    class Trained(list):
        ends, bias = {}, {}  # noqa: RUF012

    made = Trained()
    made.ends, made.bias = {}, {}

    def train(config, workdir, *, accept_changes, watch):
        workdir.mkdir(exist_ok=True)
        file, end = workdir / "metrics.jsonl", made.ends.get(len(made), 0)
        first = len(file.read_text().splitlines()) if file.exists() else 0
        made.append((int(workdir.name[:4]), config.optimizer.learning_rate, first))
        for step in range(first + 1, 7):
            if step == 4 and end:
                if isinstance(end, BaseException):
                    raise end
                return end
            loss = 1 / step + abs(math.log10(config.optimizer.learning_rate) + 2) + made.bias.get(len(made) - 1, 0)
            with file.open("a") as lines:
                lines.write(json.dumps({"step": step, "loss": loss}) + "\n")
            watch(step, {"loss": loss})
        return 0

    monkeypatch.setattr(search, "train", train)
    return made


def states(workdir, metric="loss"):
    return [trial.state.name for trial in study(workdir, metric).trials]


def study(workdir, metric="loss"):
    backend = optuna.storages.journal.JournalFileBackend(str(workdir / "optuna.log"))
    return optuna.load_study(study_name=metric, storage=optuna.storages.JournalStorage(backend))


def work(config, workdir, trials=3, asked=space, metric="loss"):
    return Search(config, workdir, metric).work(asked, trials, accept_changes=False)


def test_what_is_drawn_depends_on_the_number_of_a_trial_alone(tiny, tmp_path, trained):
    assert work(tiny, tmp_path / "one", 4) == 0
    one, trained[:] = list(trained), []
    for so_far in (1, 2, 3, 4):  # a worker each
        assert work(tiny, tmp_path / "many", so_far) == 0
    assert trained == one and [run for run, *_ in one] == [0, 1, 2, 3] and len({rate for _, rate, _ in one}) == 4
    assert work(tiny, tmp_path / "many", 4) == 0 and len(trained) == 4  # enough
    tiny.seed = 1
    trained.clear()
    work(tiny, tmp_path / "other", 1)
    assert trained[0][1] != one[0][1]


def test_a_search_comes_nearer_to_the_best(tiny, tmp_path, trained):
    work(tiny, tmp_path, 25)
    far = [abs(math.log10(rate) + 2) for _, rate, _ in trained]
    assert sum(distance < 0.15 for distance in far[10:]) >= 4  # of 15, of which chance would have 1.5
    assert study(tmp_path).best_value == pytest.approx(1 / 6 + min(far))


def test_a_trial_worse_than_most_at_its_step_is_pruned(tiny, tmp_path, trained, capsys):
    trained.bias[5] = 10.0  # the first that there are five to compare with
    work(tiny, tmp_path, 6)
    assert states(tmp_path) == ["COMPLETE"] * 5 + ["PRUNED"]
    assert study(tmp_path).trials[5].last_step == 1 and "trial 5 is pruned\n" in capsys.readouterr().out
    tiny.optimizer.warmup_steps = 4
    trained.bias[6] = 10.0
    work(tiny, tmp_path, 7)
    assert study(tmp_path).trials[6].last_step == 4  # not judged before the rate has grown


def test_the_figures_of_a_trial_are_those_of_its_run(tiny, tmp_path, trained):
    work(tiny, tmp_path, 1)
    (trial,) = study(tmp_path).trials
    (place,) = tmp_path.glob("0000-*")
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    assert trial.intermediate_values == {row["step"]: row["loss"] for row in rows}
    assert trial.value == rows[-1]["loss"] and place.name == f"0000-learning_rate_{trial.params[KEY]:.4g}"


@pytest.mark.parametrize(
    "end", [75, KeyboardInterrupt(), SystemExit(75), OSError(28, "No space left on device")], ids=repr
)
def test_a_trial_that_its_worker_leaves_goes_on_with_the_next(tiny, tmp_path, trained, end):
    trained.ends[1] = end
    if isinstance(end, int):
        assert work(tiny, tmp_path) == end
    else:
        with pytest.raises(type(end)):
            work(tiny, tmp_path)
    assert states(tmp_path) == ["COMPLETE", "FAIL", "WAITING"]
    assert not list((tmp_path / "alive").iterdir())
    assert work(tiny, tmp_path) == 0
    assert [(run, first) for run, _, first in trained] == [(0, 0), (1, 0), (1, 3), (3, 0)]
    assert trained[1][1] == trained[2][1]  # the same run, in the same directory
    assert len(list(tmp_path.glob("0*"))) == 3
    assert list(study(tmp_path).trials[2].intermediate_values) == [1, 2, 3, 4, 5, 6]


def begun(config, workdir):
    """A trial that a worker begins, and never ends."""
    trial = Search(config, workdir, "loss")._next(9)
    space(trial)
    (workdir / "alive").mkdir(exist_ok=True)
    (workdir / "alive" / str(trial.number)).touch()
    return trial


def dies(workdir, trial):
    """Its worker has not been heard of for long."""
    os.utime(workdir / "alive" / str(trial.number), (time.time() - search.DEAD - 9,) * 2)


def test_a_trial_of_a_dead_worker_is_taken_up_and_that_of_a_living_one_left(tiny, tmp_path, trained, capsys):
    dead, living = begun(tiny, tmp_path), begun(tiny, tmp_path)
    dies(tmp_path, dead)
    assert work(tiny, tmp_path, 2) == 0
    assert trained == [(0, dead.params[KEY], 0)]
    assert "1 of the trials are with other workers; of a dead one this command takes them after 120 s" in (
        capsys.readouterr().out
    )
    assert states(tmp_path) == ["FAIL", "RUNNING", "COMPLETE"]
    dies(tmp_path, living)
    assert work(tiny, tmp_path, 2) == 0 and trained[1] == (1, living.params[KEY], 0)


def test_a_run_of_which_workers_die_is_given_up(tiny, tmp_path, trained):
    for number in range(search.DEATHS):
        trial = begun(tiny, tmp_path)
        assert trial.number == number
        dies(tmp_path, trial)
    assert work(tiny, tmp_path, 1) == 0
    assert not trained and states(tmp_path) == ["FAIL"] * search.DEATHS


def test_a_worker_that_was_taken_for_dead_lets_go(tiny, tmp_path, trained, monkeypatch, caplog):
    real = search.train

    def slow(config, workdir, **options):
        if not trained:
            other = Search(tiny, tmp_path, "loss")
            other._leave(other._trials()[0], deaths=1)
        return real(config, workdir, **options)

    monkeypatch.setattr(search, "train", slow)
    assert work(tiny, tmp_path, 1) == 0
    assert caplog.messages == ["trial 0 went to another worker, which took this one for dead"]
    assert states(tmp_path) == ["FAIL", "COMPLETE"] and [run for run, *_ in trained] == [0, 0]


def test_a_training_without_the_figure_ends_the_search(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "train", lambda config, workdir, **options: 0)
    with pytest.raises(InputError, match=r"the training in .*/0000-learning_rate_.* has left no loss to search by\.$"):
        work(tiny, tmp_path, 1)
    assert states(tmp_path) == ["FAIL"]


def test_two_workers_that_ask_at_once_begin_no_more_than_there_are_to_be(tiny, tmp_path, trained):
    one, other = (Search(tiny, tmp_path, "loss") for _ in range(2))
    one._next(1)
    between = other._runs_before
    other._runs_before = lambda number=None: (
        0 if number is None else between(number)
    )  # as it was before the first asked
    assert other._next(1) is None
    assert states(tmp_path) == ["RUNNING", "FAIL"]


def test_a_training_that_goes_wrong_on_its_way_is_as_bad_a_choice_as_a_pruned_one(tiny, tmp_path, trained, caplog):
    trained.ends[1] = InputError("loss or gradient was not finite.")
    assert work(tiny, tmp_path) == 0
    assert states(tmp_path) == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert caplog.messages == ["trial 1: loss or gradient was not finite."]


def test_what_is_of_the_machine_leaves_its_trial_to_the_next_worker(tiny, tmp_path, trained):
    trained.ends[0] = MachineError("process 7 on host trains in it: wait for its end.")
    with pytest.raises(MachineError):
        work(tiny, tmp_path, 1)
    assert work(tiny, tmp_path, 1) == 0 and states(tmp_path) == ["FAIL", "COMPLETE"]
    assert [run for run, *_ in trained] == [0, 0]


MISTAKES = {
    "optimizer.learning_rat": "unknown configuration key 'optimizer.learning_rat'. Did you mean 'optimizer.learning_rate'?",
    "seed": "seed = 0.",
    "training.cpu_devices": "training.cpu_devices is the same for all runs of a sweep",
}


@pytest.mark.parametrize("key", MISTAKES)
def test_a_mistake_in_the_space_ends_the_search(tiny, tmp_path, trained, key):
    with pytest.raises(InputError, match=re.escape(MISTAKES[key])):
        work(tiny, tmp_path, asked=lambda trial: trial.suggest_float(key, 0, 0.5))
    assert not trained and states(tmp_path) == ["FAIL"]


def test_tuples_are_chosen_as_text_and_a_broken_space_is_told_with_its_line(tiny, tmp_path, trained, monkeypatch):
    seen = []
    monkeypatch.setattr(search, "changed", lambda config, settings: seen.append(settings) or config)
    work(tiny, tmp_path, 1, lambda trial: trial.suggest_categorical("model.unet.channel_mult", ["(1,2)"]))
    assert seen == [{"model.unet.channel_mult": (1, 2)}]
    with pytest.raises(InputError, match=r"test_search.py, line \d+: ZeroDivisionError: division by zero$"):
        work(tiny, tmp_path, 2, lambda trial: 1 / 0)


def test_a_metric_is_the_loss_or_of_the_evaluations_while_training(tiny, tmp_path):
    def refused(metric, message):
        with pytest.raises(InputError) as error:
            Search(tiny, tmp_path / "s", metric)
        assert str(error.value).startswith(message) and not (tmp_path / "s").exists()

    refused("fdi", "unknown metric of a search 'fdi'. Did you mean 'fid'? Known: fid, loss, pr.")
    refused("fid", "training.evaluate_every = 0, so no training has a fid to search by: set it.")
    tiny.training.update(log_every=0, evaluate_every=5)
    refused("loss", "training.log_every = 0, so no training has a loss to search by: set it.")
    Search(tiny, tmp_path / "s", "fid")
    Search(tiny, tmp_path / "p", "pr")
    assert study(tmp_path / "s", "fid").direction.name == "MINIMIZE"
    assert study(tmp_path / "p", "pr").direction.name == "MAXIMIZE"  # precision
    with pytest.raises(InputError, match="holds a search by 'fid': give --search fid, or another --workdir.$"):
        Search(tiny, tmp_path / "s", "pr")
    for name, file in (("sweep", "sweep.json"), ("run", "checkpoints")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
        with pytest.raises(InputError, match=f"holds a {name}"):
            Search(tiny, tmp_path / name, "fid")


def test_the_list_has_the_best_run_first(tiny, tmp_path, trained):
    trained.bias.update({0: 3.0, 1: 1.0, 2: 2.0})
    trained.ends[3] = 75
    work(tiny, tmp_path, 4)
    rows = [re.split(" {2,}", line) for line in Search(tiny, tmp_path, "loss").lines()]
    assert [(row[0], row[2]) for row in rows] == [
        ("1", "finished"),
        ("2", "finished"),
        ("0", "finished"),
        ("3", "waiting"),
    ]
    assert rows[0][1] == f"{KEY}={trained[1][1]}" and rows[0][3] == f"loss {study(tmp_path).best_value:.4g} at step 6"
    assert len(rows[3]) == 3


def test_a_search_needs_a_space(tiny, tmp_path):
    flags = dict(text=None, index=None, listing=False, metric="loss", trials=None, accept_changes=False)
    with pytest.raises(InputError) as error:
        train_many.train_many(tiny, "experiments/digits.py", tmp_path, **flags)
    assert str(error.value) == (
        "--search needs a function space(trial) in experiments/digits.py, as in experiments/sweep_digits.py."
    )


@pytest.mark.slow
def test_workers_of_the_command_share_a_search_and_one_that_is_stopped_leaves_its_trial(tmp_path):
    flags = ["--config=experiments/sweep_digits.py", *TINY[1:], f"--workdir={tmp_path}", "--search=fid", "--trials=3"]
    flags += ["--config.training.num_steps=20", "--config.training.evaluate_every=10"]
    worker = start(*flags, "--config.training.num_steps=20000")
    while worker.poll() is None and not list(tmp_path.glob("0000-*/evaluation.jsonl")):
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=300)
    assert worker.returncode == 75, err
    first, second = start(*flags), start(*flags)
    told = [process.communicate(timeout=600) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), told
    made = study(tmp_path, "fid").trials
    assert [trial.state.name for trial in made].count("COMPLETE") == 3 and made[1].user_attrs["run"] == 0
    assert len(list(tmp_path.glob("0*"))) == 3
    code, out, err = run(*flags, "--list")
    assert code == 0 and out.count("finished") == 3 and " fd " in out, err
