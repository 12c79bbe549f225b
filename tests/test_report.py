"""The report: what it reads of runs, and what its page says; the page itself is looked at in test_report_page.py."""

import html
import json
import pathlib
import re
import shutil

import pytest
from conftest import REPO, run
from report_runs import config, evaluate, png, text, write_metrics, write_record, write_run, write_sweep, written

from ddpm import modes
from ddpm.errors import InputError
from ddpm.report.collect import collect, common
from ddpm.report.sweep import differing_keys, sweep
from ddpm.report.table import table

# ---- reading


def test_a_run_is_read_as_it_was_written(tmp_path):
    workdir = write_run(tmp_path / "a", steps=(10, 20))
    evaluate(workdir, {"fd": 1.5})
    (read,) = collect([workdir])
    assert read.name == "a" and read.step == 20 and not read.notes
    assert [row["step"] for row in read.metrics] == [10, 20]
    assert read.config == config() and read.record["facts"]["count"] == 1500
    assert read.evaluations[0]["figures"] == {"fd": 1.5}
    assert {step: sorted(kinds) for step, kinds in read.grids.items()} == {10: ["EMA", "raw"], 20: ["EMA", "raw"]}
    assert read.grids[10]["EMA"] == (workdir / "samples" / "00000010.png").read_bytes()
    assert list(read.pictures) == ["samples/path.png"]


def test_broken_lines_and_pictures_are_told_and_the_rest_is_shown(tmp_path):
    workdir = write_run(tmp_path / "a")
    with (workdir / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 400, "los\n[1]\n{"loss": 3}\n')
    (workdir / "evaluation.jsonl").write_text('{"figures": {"fd": 1}, "provenance": {}}\nnull\n')
    (workdir / "samples" / "00000200.png").write_bytes(png()[:60])
    (workdir / "samples" / "00000300_raw.png").write_text("no picture")
    shutil.rmtree(workdir / "checkpoints" / "300" / "record")
    (read,) = collect([workdir])
    assert len(read.metrics) == 3 and not read.evaluations
    assert {step: sorted(kinds) for step, kinds in read.grids.items()} == {
        100: ["EMA", "raw"],
        200: ["raw"],
        300: ["EMA"],
    }
    said = text(written(workdir))
    for note in (
        "3 broken lines of metrics.jsonl skipped",
        "2 broken lines of evaluation.jsonl skipped",
        "checkpoint 300 is broken",
        "no checkpoint that can be read, so configuration, data and versions are not known",
        "samples/00000200.png cannot be read as an image (",
        "samples/00000300_raw.png cannot be read as an image (",
    ):
        assert note in said, note


def test_an_older_checkpoint_tells_of_a_run_whose_newest_is_broken(tmp_path):
    workdir = write_run(tmp_path / "a")
    write_record(workdir, 400, config())
    (workdir / "checkpoints" / "400" / "record" / "metadata").write_text('{"config"')
    (read,) = collect([workdir])
    assert read.record["step"] == 300 and read.notes == ["checkpoint 400 is broken"]


@pytest.mark.parametrize("kind", ["nothing", "a file"])
def test_mistakes_are_answered_with_a_remedy(tmp_path, kind):
    empty = tmp_path / "empty"
    empty.mkdir() if kind == "nothing" else empty.write_text("x")
    with pytest.raises(InputError) as error:
        collect([empty])
    said = f"nothing to show in {empty}: no metrics.jsonl, checkpoint, samples or evaluation.jsonl."
    assert str(error.value) == said
    with pytest.raises(InputError) as error:
        collect([tmp_path / "absent", empty])
    assert str(error.value) == f"no directory {tmp_path / 'absent'}: give the --workdir of a run."


def test_files_that_cannot_be_read_are_named_where_there_are_no_others(tmp_path):
    (tmp_path / "a" / "samples").mkdir(parents=True)
    (tmp_path / "a" / "metrics.jsonl").mkdir()
    (tmp_path / "a" / "evaluation.jsonl").write_text("null\n")
    (tmp_path / "a" / "samples" / "00000100.png").write_bytes(png()[:60])
    with pytest.raises(InputError) as error:
        collect([tmp_path / "a"])
    assert re.fullmatch(
        r"nothing to show in .*: no metrics.jsonl, checkpoint, samples or evaluation.jsonl that can be read: "
        r"metrics.jsonl cannot be read \(Is a directory\); 1 broken line of evaluation.jsonl skipped; "
        r"samples/00000100.png cannot be read as an image \(.*\)\.",
        str(error.value),
    )


def test_runs_that_have_only_the_root_in_common_are_shown_in_the_first(tmp_path):
    assert common([tmp_path, pathlib.Path("/elsewhere/run")]) == ("Runs", tmp_path)


def test_of_several_directories_those_without_a_run_are_passed_over(tmp_path, caplog):
    (tmp_path / "logs").mkdir()
    runs = collect([write_run(tmp_path / "a"), tmp_path / "logs", tmp_path / "a" / "."])
    assert [read.name for read in runs] == ["a"]  # and none twice
    assert caplog.messages == [f"{tmp_path / 'logs'} is no run: passed over"]


def test_names_begin_where_paths_begin_to_differ(tmp_path, monkeypatch):
    runs = [write_run(tmp_path / name, steps=(1,)) for name in ("x/seed0", "x/seed1", "y/seed0")]
    assert [read.name for read in collect(runs)] == ["x/seed0", "x/seed1", "y/seed0"]
    assert common(runs)[0] == f"Runs of {tmp_path.name}" and common(runs)[1].resolve() == tmp_path
    assert common(runs[:1]) == ("seed0", runs[0])
    monkeypatch.chdir(tmp_path / "x")
    assert common(runs)[1] == tmp_path  # not ..
    monkeypatch.chdir(tmp_path.parent)
    assert str(common(runs)[1]) == tmp_path.name


def test_of_many_grids_the_first_the_newest_and_some_between_are_shown(tmp_path):
    workdir = write_run(tmp_path / "a", steps=tuple(range(1, 61)))
    (read,) = collect([workdir])
    assert len(read.grids) == 24 and {1, 60} <= read.grids.keys() and read.grids_left_out == 36
    assert "24 of 60 sample grids are shown here." in text(written(workdir)) and not read.notes


# ---- the page


def test_hostile_names_and_values_are_shown_as_text(tmp_path):
    evil = "<script>alert('&')<"  # a directory's name holds no slash
    workdir = write_run(tmp_path / evil, optimizer__learning_rate=1e-3, data__folder__path=f"{evil}/script>")
    other = write_run(tmp_path / "b", model__name="<img src=x onerror=alert(1)>")
    evaluate(workdir, {"<b>fd": 1.0}, sampler=f"{evil}/script>", reference={"name": "</template><script>alert(2)"})
    evaluate(workdir, {"<b>fd": 1.0}, nfe=7, seed="</script><script>alert(3)</script>")
    write_metrics(other, [{"step": 400, f"{evil}/script>": 1.0, "loss": 1.0}])
    whole = written(workdir, other, title=evil)
    assert len(re.findall("<script", whole)) == 2  # plots and page.js; `written` left out the library
    assert "<img src=x" not in whole and "<b>fd" not in whole and "</template><script" not in whole
    assert evil in text(whole) and "<img src=x onerror=alert(1)>" in text(whole)
    data = json.loads(re.search(r'id="plots">(.*?)</script>', whole, re.S)[1])
    assert {line["name"] for line in data[0]["data"] if "name" in line} <= {html.escape(evil), "b", ""}


def test_the_page_needs_no_network_and_no_other_file(tmp_path):
    whole = written(write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1))
    assert not re.findall(r"https?://", whole.replace("http://www.w3.org/2000/svg", ""))
    sources = re.findall(r"""(?:\b(?:src|href|action)=|url\(|@import\s+)["']?([^"'\s>]*)""", whole)
    assert sources and all(re.match(r"data:|#", source) for source in sources), sources
    assert "default-src 'none'" in whole and not re.search(
        r"fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", whole
    )


def test_fifty_runs_are_one_page_of_bounded_size(tmp_path):
    workdirs = write_sweep(tmp_path, 50)
    long = "".join(json.dumps({"step": i, "loss": 1 / i, "grad_norm": 1 / i}) + "\n" for i in range(1, 501))
    for workdir in workdirs:
        (workdir / "metrics.jsonl").write_text(long)
    runs = collect(workdirs)
    assert all(len(read.grids) == 1 for read in runs) and not any(read.notes for read in runs)
    whole = written(*workdirs)
    assert len(whole) < 8e6
    body = whole.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr>") == 50
    parallel, scatter = sweep(runs, table(runs), differing_keys(runs))
    (fd, *_) = parallel["choices"][0]["options"]
    rate, schedule, figure = fd["data"][0]["dimensions"]
    assert (rate["label"], schedule["label"], figure["label"]) == ("optimizer.learning_rate", "schedule.name", "fd ↓")
    assert rate["ticktext"] == ["2e-05", "5e-05", "0.0001", "0.0002", "0.0005"] and len(rate["values"]) == 50
    assert figure["values"] == pytest.approx([100 * 10**value for value in rate["values"]])
    assert schedule["ticktext"] == ["cosine", "linear"] and schedule["values"] == [1, 0] * 25
    keys, figures = scatter["choices"]
    assert keys["options"][0]["layout"]["xaxis"]["type"] == "log"
    assert [option["label"] for option in figures["options"]] == ["fd ↓", "precision ↑", "loss, last logged ↓"]


def test_the_command_writes_the_page_and_prints_its_place(tmp_path, capsys, monkeypatch):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)
    opened = []
    monkeypatch.setattr(modes.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    assert modes.report([a], None) == 0 and not opened  # not where nobody looks: the output is no terminal
    assert capsys.readouterr().out == f"report    {a}/report.html\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.chdir(tmp_path)
    assert modes.report([a, b], None) == 0 and opened == [(tmp_path / "report.html").as_uri()]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert modes.report([a, b], tmp_path / "new" / "page.html") == 0 and (tmp_path / "new" / "page.html").exists()


@pytest.mark.slow
def test_the_command_answers_a_mistake_with_one_line(tmp_path):
    code, out, err = run("--mode=report", f"--workdir={tmp_path}/nosuch")
    assert (code, out, err) == (2, "", f"error: no directory {tmp_path}/nosuch: give the --workdir of a run.\n")


def test_make_train_ends_with_the_report():
    recipe = re.search(r"^train:.*\n((?:\t.*\n)+)", (REPO / "Makefile").read_text(), re.M)[1]
    assert recipe.splitlines()[-1].endswith("--mode report --workdir runs/digits")
