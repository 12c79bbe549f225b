"""Figures of samples against network evaluations, and against training steps, as plots."""

from collections.abc import Callable

from ddpm.report.collect import Collected, number
from ddpm.report.plots import DASHES, choice, plot, trace
from ddpm.report.table import Row, Table, heading, unsaid, varying

TICKS = 12  # numbers of network evaluations that have a tick each


def quality_against_nfe(runs: list[Collected], table: Table) -> list[dict]:
    """Figures against network evaluations an image: of one step of a run, a line a sampler."""
    rows = _of_several(table.rows, lambda g: g.get("step"), lambda g: (g.get("sampler"), g.get("nfe")))
    axis = {"title": "network evaluations an image", "type": "log"}
    numbers = sorted({nfe for row in rows if (nfe := number(row.generated.get("nfe"))) is not None})
    axis |= {"tickvals": numbers} if len(numbers) <= TICKS else {"dtick": "D2"}
    return _by_figure("Quality against network evaluations", runs, table, rows, "nfe", axis)


def figures_over_steps(runs: list[Collected], table: Table) -> list[dict]:
    """Figures against training steps: of samples that were generated in one way at several steps."""
    rows = _of_several(table.rows, lambda g: _settings(g, "step"), lambda g: g.get("step"))
    return _by_figure("Figures over training steps", runs, table, rows, "step", {"title": "step"})


def _of_several(rows: list[Row], same: Callable, differing: Callable) -> list[Row]:
    """Rows of which there are several of a run that are the same in one thing and differ in another."""
    groups = {}
    for row in rows:
        groups.setdefault(str((row.run, same(row.generated))), []).append(row)
    several = [group for group in groups.values() if len({str(differing(row.generated)) for row in group}) > 1]
    return [row for group in several for row in group]


def _by_figure(title: str, runs: list[Collected], table: Table, rows: list[Row], x: str, axis: dict) -> list[dict]:
    """Figures against the number `x` of how samples were generated, a line for all that is the same but for it."""
    rows = [row for row in rows if number(row.generated.get(x)) is not None]
    columns = [column for column in table.columns if any(column in row.cells for row in rows)]
    if not columns:
        return []
    settings = [_settings(row.generated, x) for row in rows]
    varied = [key for key in varying(settings) if key != "sampler"]
    lines = {}
    for row, setting in zip(rows, settings, strict=True):
        own = varying([other for other in settings if other.get("sampler") == setting.get("sampler")])
        telling = [key for key in varied if key in setting and (key in own or not key.startswith("sampler_options."))]
        said = [f"{key.rpartition('.')[2]} {setting[key]}" for key in telling]
        label = ", ".join([str(setting.get("sampler", "samples")), *said])
        lines.setdefault((row.run, label), []).append(row)
    styles = {label: i for i, label in enumerate(dict.fromkeys(label for _, label in lines))}
    data = []
    for run, label in lines:
        name, colour = (label, styles[label]) if len(runs) == 1 else (f"{runs[run].name}: {label}", run)
        line = {"width": 1.5, "dash": DASHES[styles[label] % len(DASHES)]}
        data.append(trace([], [], colour, name, mode="lines+markers", line=line))
    options = {}
    for column in columns:
        changes = []
        for group in lines.values():
            points = sorted((row.generated[x], row.cells[column].value) for row in group if column in row.cells)
            changes.append({"x": [at for at, _ in points], "y": [value for _, value in points]})
        options[table.name(column)] = (changes, {"yaxis": {"title": heading(column[0])}})
    return [plot(title, data, axis, {}, choices=[choice("Figure", options)], wide=True, showlegend=True)]


def _settings(generated: dict, x: str) -> dict:
    """What was chosen of how samples were generated, but for `x`."""
    left_out = (x, "num_steps", "when")  # nfe says the one; the other changes no sample
    return {key: value for key, value in generated.items() if key not in left_out and not unsaid(key)}
