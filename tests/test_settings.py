"""Settings of runs: what `--sweep` and sweep(add) mean, and what is told of mistakes in them."""

import re

import numpy as np
import pytest

from ddpm import settings
from ddpm.errors import InputError


def test_a_sweep_is_the_product_of_its_values_the_last_key_quickest(tiny):
    assert settings.listed("optimizer.learning_rate=1e-4,2e-4 seed=0..2", tiny) == [
        {"optimizer.learning_rate": rate, "seed": seed} for rate in (1e-4, 2e-4) for seed in (0, 1, 2)
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=-1..1,7", [-1, 0, 1, 7]),
        ("optimizer.learning_rate=1", [1.0]),
        ("data.flip=true,False", [True, False]),
        ("model.unet.channel_mult=(1,2),(1, 2, 2),()", [(1, 2), (1, 2, 2), ()]),
        ("schedule.name=linear,cosine", ["linear", "cosine"]),
        ("guidance.worse=", [""]),
        ("data.folder.path=1..2", ["1..2"]),
        ("evaluation.metrics=('fid','pr'),('fid',)", [("fid", "pr"), ("fid",)]),
    ],
)
def test_values_are_of_the_type_of_their_key(tiny, text, values):
    key = text.partition("=")[0]
    found = [run[key] for run in settings.listed(text, tiny)]
    assert found == values and [type(a) for a in found] == [type(b) for b in values]
    for run in settings.listed(text, tiny):
        assert settings.changed(tiny, run)[key] == run[key]


MISTAKES = {
    "optimizer.learning_rat=1": "unknown configuration key 'optimizer.learning_rat'. Did you mean 'optimizer.learning_rate'?",
    "seed=a": "seed = 'a' is no int.",
    "seed=1.5": "seed = '1.5' is no int.",
    "seed=1,": "seed = '' is no int.",
    "optimizer.learning_rate=0..2": "optimizer.learning_rate = '0..2' is no float.",
    "data.flip=maybe": "data.flip = 'maybe' is no bool.",
    "model.unet=3": "unknown configuration key 'model.unet'.",
    "seed=2..0": "--sweep: seed=2..0 is empty: write the lower number first.",
    "seed=0 seed=1": "--sweep: seed is given twice: write its values with commas.",
    "seed=0,1,0": "runs 0 and 2 of the sweep are the same: seed=0.",
    "seed": "--sweep: 'seed' is not key=value,value or key=0..2, such as 'optimizer.learning_rate=1e-4,2e-4 seed=0..2'.",
    "": "--sweep: '' is not key=value,value or key=0..2, such as",
    "training.cpu_devices=1,2": "training.cpu_devices is the same for all runs of a sweep: give --config.training.cpu_devices=VALUE.",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_with_its_value(tiny, text):
    with pytest.raises(InputError, match=re.escape(MISTAKES[text])):
        settings.listed(text, tiny)


def test_a_function_adds_runs(tiny):
    def sweep(add):
        for rate in np.logspace(-4, -3, 2):
            add({"optimizer.learning_rate": rate})
        add({"model.unet.channel_mult": [1, 2], "optimizer.learning_rate": 1})

    runs = settings.added(sweep, tiny)
    assert runs[0] == {"optimizer.learning_rate": 1e-4} and type(runs[0]["optimizer.learning_rate"]) is float
    assert runs[2] == {"model.unet.channel_mult": (1, 2), "optimizer.learning_rate": 1.0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "sweep(add) of the experiment adds no run: call add({'seed': 0}) for each."),
        ("add({'sed': 1})", "unknown configuration key 'sed'. Did you mean 'seed'?"),
        ("add({'seed': True})", "seed = True is no int."),
        ("add({'data.flip': 1})", "data.flip = 1 is no bool."),
        ("add(seed=1)", "sweep.py, line 2: TypeError: "),
        ("1 / 0", "sweep.py, line 2: ZeroDivisionError: division by zero"),
    ],
)
def test_a_mistake_in_a_function_is_told_with_its_line(tiny, tmp_path, body, message):
    file = tmp_path / "sweep.py"
    file.write_text(f"def sweep(add):\n    {body}\n")
    with pytest.raises(InputError) as error:
        settings.added(settings.function(str(file), "sweep"), tiny)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert settings.function(str(file), "space") is None


def test_a_run_is_changed_and_the_experiment_is_not(tiny):
    new = settings.changed(tiny, {"seed": 3, "model.unet.channel_mult": (1, 2)})
    assert (new.seed, new.model.unet.channel_mult, tiny.seed) == (3, (1, 2), 0)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ({"optimizer.learning_rate": 1e-4, "seed": 0}, "007-learning_rate_0.0001-seed_0"),
        ({"optimizer.learning_rate": 0.1 + 0.2}, "007-learning_rate_0.3"),
        ({"schedule.name": "cosine"}, "007-schedule_cosine"),
        (
            {"data.folder.path": "/a b/../c:d", "model.unet.channel_mult": (1, 2)},
            "007-path_a_b_.._c_d-channel_mult_1_2",
        ),
        ({"guidance.worse": "é" * 3 + "x" * 200}, "007-worse_" + "x" * 54),
    ],
)
def test_a_directory_is_named_in_letters_of_every_file_system(tmp_path, run, name):
    assert settings.folder(tmp_path, 7, run, 3) == tmp_path / name


def test_settings_are_said_as_they_are_given(tiny):
    text = "model.unet.channel_mult=(1,2) schedule.name=cosine seed=1"
    assert settings.said(settings.listed(text, tiny)[0]) == text
