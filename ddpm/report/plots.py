"""Plots as plain data: traces and layout in Plotly's words, and what drop-downs change of them. page.js draws them."""

import html
from collections.abc import Sequence

import numpy as np

DASHES = ("solid", "6px,3px", "2px,2px", "10px,3px,2px,3px", "12px,6px")
COLOURS = 10  # of page.css


def plot(
    title: str,
    data: list[dict],
    x: dict,
    y: dict,
    *,
    choices: Sequence[dict] = (),
    wide: bool = False,
    min_width: int = 0,
    **layout,
) -> dict:
    """A plot of a page.

    Args:
      title: its heading.
      data: traces.
      x, y: axes.
      choices: drop-downs, as `choice` makes them.
      wide: over the whole page instead of half of it.
      min_width: in pixels; on a narrower screen it scrolls sideways.
    """
    layout = {"xaxis": x, "yaxis": y, **layout}
    return {
        "title": title,
        "data": data,
        "layout": layout,
        "choices": list(choices),
        "wide": wide,
        "min_width": min_width,
    }


def choice(label: str, options: dict[str, tuple[list[dict], dict]]) -> dict:
    """A drop-down; by the label of each option what it changes of the traces, and of the layout."""
    listed = [{"label": name, "data": data, "layout": layout} for name, (data, layout) in options.items()]
    return {"label": label, "options": listed}


def trace(x: list, y: list, run: int, name: str, **options) -> dict:
    """A line in the colour and dashes of a run, by its number."""
    line = {"width": 1.5, "dash": dash(run)}
    name = html.escape(name)
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "meta": run, "line": line} | options


def dash(run: int) -> str:
    """The dashes of a run's lines: with ten colours they tell fifty runs apart."""
    return DASHES[run // COLOURS % len(DASHES)]


def thin(steps: list, values: list, points: int) -> tuple[list, list]:
    """A curve of at most so many points: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(steps) <= points:
        return steps, values
    kept = []
    for stretch in np.array_split(np.arange(len(steps)), points // 2):
        inside = [values[i] for i in stretch]
        kept += sorted({stretch[np.argmin(inside)], stretch[np.argmax(inside)]})
    return [steps[i] for i in kept], [values[i] for i in kept]
