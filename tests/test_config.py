"""Configurations compared, brought back from JSON and up to date."""

import pytest

from ddpm import config
from ddpm.config import NEWER, check_same_run, flat, from_json, in_use, to_json, up_to_date
from ddpm.errors import InputError
from experiments import base, digits


def of_old():
    values = to_json(digits.get_config())
    for dotted in NEWER:
        *path, key = dotted.split(".")
        section = values
        for name in path:
            section = section[name]
        del section[key]
    values["grid"]["name"] = "uniform"
    del values["guidance"]
    values["condition"] = {"label_dropout": 0.2}
    return values


def test_a_run_of_an_older_age_is_one_of_today():
    now = digits.get_config()
    now.condition.null_rate = 0.2
    now = to_json(now)
    assert in_use(up_to_date(of_old())) == in_use(now)
    assert check_same_run(of_old(), now, "runs/x", accept=False) == []
    assert from_json(of_old()).condition.null_rate == 0.2


def test_what_newer_keys_stand_for_is_what_base_has():
    defaults = flat(to_json(base.get_config()))
    assert {key: defaults[key] for key in NEWER} == NEWER


def test_bringing_up_to_date_changes_nothing_that_is():
    now = to_json(digits.get_config())
    now["sampler"]["percentile"] = 0.9
    assert up_to_date(now) == now


def test_json_brings_a_configuration_back(tiny):
    again = config.from_json(config.to_json(tiny))
    assert again.to_dict() == tiny.to_dict()
    assert again.model.unet.channel_mult == (1,)


@pytest.mark.parametrize(
    ("key", "value", "refused"),
    [
        ("model.unet.channels", 16, True),
        ("schedule.name", "linear", True),
        ("seed", 1, True),
        ("data.name", "npz", True),
        ("data.digits.split", "test", True),
        ("model.unet.remat", True, False),
        ("training.num_steps", 7, False),
        ("optimizer.learning_rate", 0.5, False),
    ],
)
def test_a_changed_configuration_is_told_and_refused_where_it_corrupts(tiny, key, value, refused):
    old = config.to_json(tiny)
    tiny.update_from_flattened_dict({key: value})
    line = next(iter(f"{key}: {a!r} -> {b!r}" for a, b in config.differences(old, config.to_json(tiny)).values()))
    if refused:
        with pytest.raises(InputError) as caught:
            config.check_same_run(old, config.to_json(tiny), "runs/x", False)
        assert str(caught.value) == (
            f"runs/x holds another experiment: {line}. Give its own configuration, another --workdir, "
            "or --accept_changes to go on with its parameters all the same, if they fit."
        )
    assert config.check_same_run(old, config.to_json(tiny), "runs/x", True) == [line]


def test_options_of_choices_not_taken_are_no_change(tiny):
    old = config.to_json(tiny)
    tiny.update_from_flattened_dict({"schedule.linear.beta_T": 0.5, "data.npz.path": "x"})
    assert config.differences(old, config.to_json(tiny)) == {}


def test_accumulation_cannot_change_in_a_run(tiny):
    old = config.to_json(tiny)
    tiny.optimizer.accumulate = 2
    with pytest.raises(
        InputError, match=r"optimizer.accumulate: 1 -> 2: steps of runs/x are counted in 1 batches each"
    ):
        config.check_same_run(old, config.to_json(tiny), "runs/x", True)
