"""The report's figures: in columns by their rules, in plots, over a sweep; and its curves."""

import json
import re

from report_runs import evaluate, text, write_metrics, write_run, written

from ddpm.evaluation.records import best
from ddpm.report.collect import collect
from ddpm.report.curves import curves
from ddpm.report.plots import thin
from ddpm.report.quality import figures_over_steps, quality_against_nfe
from ddpm.report.sweep import differing_keys, sweep
from ddpm.report.table import heading, table


def test_figures_of_different_rules_are_in_different_columns(tmp_path):
    workdir = write_run(tmp_path / "a")
    evaluate(workdir, {"fd": 1.0}, nfe=10)
    evaluate(workdir, {"fd": 2.0}, nfe=20)
    evaluate(workdir, {"fd": 3.0}, nfe=20, features={"rule": "pixels in [-1, 1]"})
    evaluate(workdir, {"fd": 4.0}, nfe=20, reference={"sha256": "0" * 32})
    evaluate(workdir, {"fd": 5.0}, nfe=20, num=100)
    made = table(collect([workdir]))
    assert made.columns == [("fd", rule) for rule in range(4)]
    values = [
        [row.cells[column].value if column in row.cells else None for column in made.columns] for row in made.rows
    ]
    assert values == [[1.0, None, None, None], [2.0, 3.0, 4.0, None], [None, None, None, 5.0]]
    labels = [rule.label for rule in made.rules]
    assert len(set(labels)) == 4 and labels[3] == "pixels, 100 samples against 1,000 of digits:train"
    assert "features.rule pixels in [-1, 1]" in labels[1] and "reference.sha256 00000000" in labels[2]
    evaluate(workdir, {"fd": 6.0}, num=100, versions={"jax": "0.1"})
    evaluate(workdir, {"fd": 7.0}, num=100, reference={"name": "/elsewhere/the_same"})  # only spelt otherwise
    runs = collect([workdir])
    labels = [rule.label for rule in table(runs).rules]
    assert len(set(labels)) == 5 and ", versions.jax 0.1" in labels[4]
    said = text(written(workdir))
    assert all(label in said for label in labels)


def test_images_that_no_run_generated_are_a_baseline(tmp_path):
    workdir = write_run(tmp_path / "a")
    held_out = {"kind": "data set", "name": "digits:test", "num": 200, "of": 297, "sha256": "1", "shape": [8, 8, 1]}
    for nfe, fd in ((10, 3.0), (100, 2.0)):
        evaluate(workdir, {"fd": fd}, nfe=nfe)
    evaluate(workdir, {"fd": 0.5}, generated=held_out)
    evaluate(workdir, {"fd": 0.7}, generated=held_out | {"name": "noise", "sha256": "2", "of": 200})
    runs = collect([workdir])
    made = table(runs)
    assert made.columns == [("fd", 0)] and made.newest(0).generated["nfe"] == 100
    whole = written(workdir)
    assert re.findall(r'<th scope="col"><button type="button">([^<]*)', whole) == [
        "step",
        "sampler",
        "nfe",
        "data set",
        "fd ↓",
    ]
    assert re.findall(r'class="best"[^>]*>([^<]*)', whole) == ["2"]  # of the samples
    assert "digits:test" in text(whole) and "All samples: params EMA" in text(whole)
    (plot,) = quality_against_nfe(runs, made)
    assert plot["choices"][0]["options"][0]["data"] == [{"x": [10, 100], "y": [3.0, 2.0]}]
    alone = write_run(tmp_path / "b")
    evaluate(alone, {"fd": 0.5}, generated=held_out)
    assert "digits:test" in text(written(alone)) and "digits:test" in text(written(workdir, alone))


def test_how_samples_were_made_is_a_column_where_it_differs_and_hashes_are_none(tmp_path):
    workdir = write_run(tmp_path / "a")
    evaluate(workdir, {"fd": 1.0}, nfe=10)
    evaluate(workdir, {"fd": 2.0}, nfe=10, clip=False)
    evaluate(workdir, {"fd": 2.0}, nfe=10, sampler="ddim", seed=3)
    heads = re.findall(r'<th scope="col"><button type="button">([^<]*)', written(workdir))
    assert heads == ["step", "sampler", "variance", "nfe", "clip", "seed", "eta", "fd ↓"]
    assert "All samples: params EMA, when afterwards" in text(written(workdir))


def test_every_figure_shows_its_whole_provenance(tmp_path):
    workdir = write_run(tmp_path / "a")
    evaluate(workdir, {"kd": 0.25, "kd_std": 0.5})
    whole = written(workdir)
    (cell,) = re.findall(r'<td[^>]*data-tip="(\w+)"[^>]*>0.25 ± 0.5</td>', whole)
    tip = text("<main>" + re.search(rf'<template id="{cell}">(.*?)</template>', whole)[1])
    for told in (
        "generated.sampler_options.variance",
        "posterior",
        "reference.sha256",
        "a94b35c556aa68f3",
        "jax",
        "subset_size",
    ):
        assert told in tip
    assert "features.rule" in tip and "2026-01-02T03:04:05" in tip and "generated.params_sha256" in tip


def test_the_best_of_a_column():
    assert best("fd", [2.0, 1.0]) == 1.0 and best("precision", [0.2, 0.1]) == 0.2
    assert best("mean_drift_red", [-0.2, 0.1, 0.3]) == 0.1 and best("sharpness", [0.2, 1.1]) == 1.1
    assert best("nearest_distance", [1.0, 2.0]) is None
    names = ("fd", "classifier_score", "spread_drift_grey", "sharpness", "nearest_distance")
    assert list(map(heading, names)) == [
        "fd ↓",
        "classifier score ↑",
        "spread drift grey → 0",
        "sharpness → 1",
        "nearest distance",
    ]


def test_quality_against_network_evaluations_has_a_line_a_sampler(tmp_path):
    workdir = write_run(tmp_path / "a")
    for sampler, nfe, fd in (("ddim", 20, 2.0), ("ddim", 5, 4.0), ("ancestral", 10, 5.0), ("ancestral", 100, 1.0)):
        evaluate(workdir, {"fd": fd, "precision": 0.5}, sampler=sampler, nfe=nfe)
    evaluate(workdir, {"fd": 9.0}, step=100, nfe=100)  # of another step: no point of the same curve
    runs = collect([workdir])
    (plot,) = quality_against_nfe(runs, table(runs))
    assert [line["name"] for line in plot["data"]] == ["ddim", "ancestral"]
    fd, precision = plot["choices"][0]["options"]
    assert fd["label"] == "fd" and fd["layout"] == {"yaxis": {"title": "fd ↓"}}
    assert fd["data"] == [{"x": [5, 20], "y": [4.0, 2.0]}, {"x": [10, 100], "y": [5.0, 1.0]}]
    assert precision["layout"] == {"yaxis": {"title": "precision ↑"}}
    assert plot["layout"]["xaxis"]["tickvals"] == [5, 10, 20, 100]
    (over,) = figures_over_steps(runs, table(runs))
    assert over["choices"][0]["options"][0]["data"] == [{"x": [100, 300], "y": [9.0, 1.0]}]


def test_lines_that_differ_in_more_than_their_sampler_say_so(tmp_path):
    workdir = write_run(tmp_path / "a")
    for nfe in (5, 10):
        evaluate(workdir, {"fd": 1.0}, nfe=nfe, seed=1, when="training")
        evaluate(workdir, {"fd": 2.0}, nfe=nfe)
        evaluate(workdir, {"fd": 3.0}, nfe=nfe, sampler="ddim", sampler_options={"eta": 0.5})
        evaluate(workdir, {"fd": 3.0}, nfe=nfe, sampler="ddim")
    runs = collect([workdir])
    (plot,) = quality_against_nfe(runs, table(runs))
    lines = ["ancestral, seed 1", "ancestral, seed 0", "ddim, seed 0, eta 0.5", "ddim, seed 0, eta 0.0"]
    assert [line["name"] for line in plot["data"]] == lines


# ---- curves, differences


def test_what_is_not_finite_is_left_out(tmp_path):
    workdir = write_run(tmp_path / "a")
    nan, inf = float("nan"), float("inf")
    rows = [{"step": i, "loss": value, "grad_norm": nan} for i, value in enumerate((1.0, nan, inf, -inf, 2.0))]
    rows += [{"step": 5, "loss": "high"}, {"step": 6, "loss": None}, {"step": 7, "loss": True}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(workdir, {"fd": nan, "precision": inf, "recall": 0.5})
    runs = collect([workdir])
    plots = {plot["title"]: plot["data"] for plot in curves(runs)}
    assert list(plots) == ["Loss"] and plots["Loss"][0]["x"] == [0, 4] and plots["Loss"][0]["y"] == [1.0, 2.0]
    assert table(runs).columns == [("recall", 0)]
    assert "NaN" not in written(workdir).partition('id="plots">')[2].partition("</script>")[0]


def test_curves_and_setup_of_a_run(tmp_path):
    workdir = write_run(tmp_path / "a")
    write_metrics(workdir, [{"step": i, "loss": 1.0, "skipped": i, "evaluation/fd": 2.0, "mine": 1.0} for i in (1, 2)])
    runs = collect([workdir])
    assert [plot["title"] for plot in curves(runs)] == ["Loss", "Skipped batches", "evaluation/fd", "mine"]
    evaluate(workdir, {"fd": 1.0})  # the same with its provenance: not twice
    assert [plot["title"] for plot in curves(collect([workdir]))] == ["Loss", "Skipped batches", "mine"]
    said = " ".join(text(written(workdir)).split())
    assert (
        "digits: 1,500 images of 8 × 8 × 1 classes 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 model unet: 72 parameters"
        in said
    )
    assert "Environment python 3." in said and "training.batch_size 64" in said


def test_loss_by_t_has_a_line_a_quarter_and_for_several_runs_a_choice(tmp_path):
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", loss=0.2)]
    (plot,) = [plot for plot in curves(collect(paths[:1])) if plot["title"] == "Loss by quarter of t"]
    assert [line["name"] for line in plot["data"]] == [f"quarter {i} from data to noise" for i in range(1, 5)]
    (plot,) = [plot for plot in curves(collect(paths)) if plot["title"] == "Loss by quarter of t"]
    assert [line["name"] for line in plot["data"]] == ["a", "b"] and len(plot["choices"][0]["options"]) == 4
    assert [line["y"] for line in plot["choices"][0]["options"][3]["data"]] == [[0.1] * 3, [0.2] * 3]


def test_a_long_curve_is_thinned_and_keeps_its_spikes():
    values = [1.0] * 100_000
    values[77_777], values[5] = 50.0, 0.1
    steps, kept = thin(list(range(100_000)), values, 1000)
    assert len(steps) <= 1000 and steps == sorted(steps) and dict(zip(steps, kept, strict=True))[77_777] == 50.0
    assert kept[steps.index(5)] == 0.1


def test_differences_of_configurations_are_columns(tmp_path):
    a = write_run(tmp_path / "a", optimizer__learning_rate=1e-3, data__folder__size=32)  # the folder is not in use
    b = write_run(tmp_path / "b", optimizer__learning_rate=2e-4, schedule__name="linear")
    evaluate(a, {"fd": 1.0})
    runs = collect([a, b])
    assert differing_keys(runs) == ["optimizer.learning_rate", "schedule.name"]
    said = text(written(a, b))
    parallel, _ = sweep(runs, table(runs), ["data.flip"])
    assert parallel["choices"][0]["options"][0]["data"][0]["dimensions"][0]["ticktext"] == ["false"]  # as in the table
    assert "Configuration: keys that differ" in said and "0.0002" in said and "cosine" in said
    assert [plot["title"] for plot in sweep(runs, table(runs), differing_keys(runs))] == [
        "Parallel coordinates",
        "A figure against a key",
    ]


def test_figures_of_samples_that_were_made_differently_are_not_compared_in_silence(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    evaluate(runs[0], {"fd": 1.0}, nfe=10)
    evaluate(runs[1], {"fd": 2.0}, nfe=20)
    read = collect(runs)
    titles = [plot["title"] for plot in sweep(read, table(read), ["seed"])]
    assert titles == [f"{name} (samples differ in nfe)" for name in ("Parallel coordinates", "A figure against a key")]
    (heads, *rows) = re.findall(r"<tr>(.*?)</tr>", written(*runs).partition('id="runs"')[2], re.S)[1:4]
    assert "nfe" in text("<main>" + heads) and len(rows) == 2
