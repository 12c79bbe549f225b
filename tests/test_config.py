"""Runs of an older age are opened, and gone on with."""

from ddpm.config import NEWER, check_same_run, flat, from_json, in_use, to_json, up_to_date
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
