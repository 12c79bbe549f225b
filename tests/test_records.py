"""The records of figures: what is the same, what is renewed, what is compared, and what is best."""

import json
import math

import pytest

from ddpm.evaluation import records


def row(step, fd, when="training", *, name="x", versions="1", reference="r", date="d", **figures):
    about = {"kind": "run", "name": name, "step": step, "when": when, "params_sha256": f"{step}"}
    return {
        "figures": {"fd": fd, **figures},
        "provenance": {
            "generated": about,
            "reference": {"name": reference, "sha256": reference},
            "features": {},
            "versions": {"jax": versions},
            "date": date,
        },
    }


def figures(workdir):
    return [made["figures"] for made in records.read(workdir)]


def test_records_of_the_same_images_are_completed(tmp_path):
    for new in (row(5, 3.0), row(10, 2.0, precision=0.5), row(5, 3.0, kd=1.0), row(10, 1.0, when="afterwards")):
        records.store(tmp_path, new)
    with (tmp_path / "evaluation.jsonl").open("a") as lines:
        lines.write('null\n[]\n3\n{"figures": {}}\n{"figures": {"fd"')  # edited by hand; a crash
    found = [{"fd": 2.0, "precision": 0.5}, {"fd": 3.0, "kd": 1.0}, {"fd": 1.0}]
    assert figures(tmp_path) == found
    records.store(tmp_path, row(15, 4.0))
    assert figures(tmp_path) == [*found, {"fd": 4.0}]


def test_a_figure_keeps_the_versions_and_the_date_it_was_made_with(tmp_path):
    records.store(tmp_path, row(5, 3.0, date="monday", precision=0.5))
    records.store(tmp_path, row(5, 4.0, date="tuesday"))
    records.store(tmp_path, row(5, 5.0, date="wednesday", versions="2"))
    assert [(made["figures"], made["provenance"]["date"]) for made in records.read(tmp_path)] == [
        ({"precision": 0.5}, "monday"),
        ({"fd": 4.0}, "tuesday"),
        ({"fd": 5.0}, "wednesday"),
    ]


def test_the_spelling_of_a_directory_makes_no_other_images(tmp_path):
    records.store(tmp_path, row(5, 3.0, name="runs/x"))
    records.store(tmp_path, row(5, 4.0, name="/elsewhere/runs/x"))
    assert figures(tmp_path) == [{"fd": 4.0}]


def test_the_best_step_is_that_of_the_training(tmp_path):
    assert records.best_step(tmp_path, "fd") is None
    for step, fd, precision in ((5, 3.0, 0.2), (10, 1.0, 0.5), (15, 2.0, 0.9), (20, math.nan, 0.1), (25, 1.0, 0.9)):
        records.store(tmp_path, row(step, fd, precision=precision))
    records.store(tmp_path, row(15, 0.1, when="afterwards"))
    assert records.best_step(tmp_path, "fd") == 10 and records.best_step(tmp_path, "precision") == 15
    assert records.best_step(tmp_path, "fd", (5, 15)) == 15 and records.best_step(tmp_path, "fd", ()) is None


def test_steps_that_were_evaluated_otherwise_than_the_newest_are_no_rivals(tmp_path):
    records.store(tmp_path, row(5, 0.1, reference="another"))
    for step, fd in ((10, 2.0), (15, 3.0)):
        records.store(tmp_path, row(step, fd, versions=f"{step}"))
    assert records.best_step(tmp_path, "fd") == 10


@pytest.mark.parametrize(
    ("figure", "values", "best"),
    [
        ("sharpness", (0.2, 1.1, 1.9), 1.1),
        ("mean_drift_red", (-0.2, 0.1, 0.3), 0.1),
        ("precision", (0.2, 0.9, 0.5), 0.9),
        ("kd", (0.2, -0.1, 0.5), -0.1),
        ("nearest_distance", (1.0, 2.0, 3.0), None),
    ],
)
def test_there_is_one_notion_of_the_best(tmp_path, figure, values, best):
    assert records.best(figure, values) == best
    for step, value in enumerate(values):
        records.store(tmp_path, row(step, 1.0, **{figure: value}))
    assert records.best_step(tmp_path, figure) == (None if best is None else values.index(best))


def test_what_was_evaluated_beyond_a_step_is_forgotten(tmp_path):
    records.forget_after(tmp_path, 5)
    assert not (tmp_path / "evaluation.jsonl").exists()
    for step in (5, 10, 15):
        records.store(tmp_path, row(step, 20.0 - step))
    records.store(tmp_path, row(15, 0.5, when="afterwards"))
    records.forget_after(tmp_path, 10)
    made = [
        json.loads(line)["provenance"]["generated"] for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()
    ]
    assert [(about["step"], about["when"]) for about in made] == [(5, "training"), (10, "training"), (15, "afterwards")]
    assert records.best_step(tmp_path, "fd") == 10
