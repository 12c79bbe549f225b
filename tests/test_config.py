"""Runs of an older age are opened, and gone on with."""

from ddpm.config import NEWER, check_same_run, flat, from_json, to_json, up_to_date
from experiments import base, digits


def of_old():
    values = to_json(digits.get_config())
    for dotted in NEWER:
        section, _, key = dotted.partition(".")
        del values[section][key]
    values["grid"]["name"] = "uniform"
    del values["condition"], values["guidance"]
    return values


def test_a_run_of_an_older_age_is_one_of_today():
    assert to_json(from_json(of_old())) == to_json(digits.get_config())
    assert check_same_run(of_old(), to_json(digits.get_config()), "runs/x", accept=False) == []


def test_what_newer_keys_stand_for_is_what_base_has():
    defaults = flat(to_json(base.get_config()))
    assert {key: defaults[key] for key in NEWER} == NEWER


def test_bringing_up_to_date_changes_nothing_that_is():
    now = to_json(digits.get_config())
    now["sampler"]["percentile"] = 0.9
    assert up_to_date(now) == now
