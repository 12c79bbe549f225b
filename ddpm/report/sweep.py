"""Runs that differ in some keys of their configurations: keys against figures, as plots."""

import html
import math

from ddpm.config import in_use
from ddpm.report.collect import Collected, number
from ddpm.report.markup import text
from ddpm.report.plots import choice, plot, trace
from ddpm.report.table import Table, heading, settings_that_vary

TICKS = 12  # a key of more values has a scale instead of a tick a value


def differing_keys(runs: list[Collected]) -> list[str]:
    """Configuration keys in use that differ between any two runs."""
    used = [in_use(run.config) for run in runs if run.config]

    def differs(key):
        # Of a section that names another choice, the name says it all: options differ among runs of one choice.
        choice_of = f"{key.split('.')[0]}.name" if key.count(".") > 1 else ""
        return len({(str(of.get(choice_of)), str(of.get(key, "absent"))) for of in used}) > len(
            {str(of.get(choice_of)) for of in used}
        )

    return sorted(key for key in set().union(*used) if differs(key))


def sweep(runs: list[Collected], table: Table, keys: list[str]) -> list[dict]:
    """Parallel coordinates of keys and a figure, and a figure against a key; figures are each run's newest."""
    runs_and_rows = [(run, table.newest(i)) for i, run in enumerate(runs) if run.config]
    results = {
        f"{heading(column[0])}{table.name(column).removeprefix(column[0])}": [
            row.cells[column].value if row and column in row.cells else None for _, row in runs_and_rows
        ]
        for column in table.columns
    } | {"loss, last logged ↓": [last(run, "loss") for run, _ in runs_and_rows]}
    results = {label: figures for label, figures in results.items() if any(v is not None for v in figures)}
    used = [in_use(run.config) for run, _ in runs_and_rows]
    settings = {key: [of.get(key, "absent") for of in used] for key in keys}
    if not settings or not results:
        return []
    names = [html.escape(run.name) for run, _ in runs_and_rows]
    differing = settings_that_vary([row for _, row in runs_and_rows if row])
    told = ", ".join(key.removeprefix("sampler_options.") for key in differing)
    warning = f" (samples differ in {told})" if differing else ""
    return [_parallel(settings, results, warning), _scatter(names, settings, results, warning)]


def last(run: Collected, key: str) -> float | None:
    """The newest value of a key of metrics.jsonl."""
    return next((v for row in reversed(run.metrics) if (v := number(row.get(key))) is not None), None)


def _parallel(settings: dict[str, list], results: dict[str, list], warning: str) -> dict:
    options = {}
    for label, figures in results.items():
        shown = [i for i, figure in enumerate(figures) if figure is not None]
        dimensions = [_dimension(key, [column[i] for i in shown]) for key, column in settings.items()]
        shown_figures = [figures[i] for i in shown]
        dimensions.append({"label": html.escape(label.partition(" (")[0]), "values": shown_figures})
        options[label] = ([{"dimensions": dimensions, "line": {"color": shown_figures}}], {})
    width = 130 * (len(settings) + 1)
    choices = [choice("Figure", options)]
    return plot(
        f"Parallel coordinates{warning}", [{"type": "parcoords"}], {}, {}, choices=choices, wide=True, min_width=width
    )


def _dimension(key: str, settings: list) -> dict:
    """An axis of parallel coordinates: a key's values in order, evenly spaced and named if they are few, else on a scale."""
    numeric = _is_numeric(settings)
    named = settings if numeric else list(map(text, settings))
    distinct = sorted(set(named))
    if numeric and len(distinct) > TICKS:
        if _scale(settings) == "linear":
            return {"label": html.escape(key), "values": named}
        low, high = math.floor(math.log10(distinct[0])), math.ceil(math.log10(distinct[-1]))
        marks = [float(f"{digit}e{power}") for power in range(low, high + 1) for digit in (1, 2, 5)]
        marks = [mark for mark in marks if distinct[0] <= mark <= distinct[-1]]
        ticks = {"tickvals": [math.log10(mark) for mark in marks], "ticktext": [f"{mark:g}" for mark in marks]}
        return {"label": html.escape(key), "values": [math.log10(value) for value in named]} | ticks
    ticks = {"tickvals": list(range(len(distinct))), "ticktext": [html.escape(str(value)) for value in distinct]}
    return {"label": html.escape(key), "values": [distinct.index(value) for value in named]} | ticks


def _scatter(names: list[str], settings: dict[str, list], results: dict[str, list], warning: str) -> dict:
    hover = "%{text}<br>%{x}: %{y}<extra></extra>"
    points = trace([], [], 0, "", mode="markers", text=names, hovertemplate=hover)
    keys = {}
    for key, values in settings.items():
        x = values if _is_numeric(values) else [html.escape(text(value)) for value in values]
        keys[key] = ([{"x": x}], {"xaxis": {"title": html.escape(key), "type": _scale(values)}})
    figures = {
        label: ([{"y": values}], {"yaxis": {"title": html.escape(label.partition(" (")[0])}})
        for label, values in results.items()
    }
    choices = [choice("Key", keys), choice("Figure", figures)]
    return plot(f"A figure against a key{warning}", [points], {}, {}, choices=choices, wide=True)


def _is_numeric(values: list) -> bool:
    return all(number(value) is not None for value in values)


def _scale(values: list) -> str:
    """Logarithmic for numbers over more than a factor of ten; words are categories."""
    if not _is_numeric(values):
        return "category"
    return "log" if min(values) > 0 and max(values) >= 10 * min(values) else "linear"
