"""What training logged over steps, as plots."""

from ddpm.report.collect import Collected, number
from ddpm.report.plots import choice, plot, thin, trace

POINTS, POINTS_OF_ALL = 1000, 20_000  # of a curve; of all curves of a plot
CURVES = {  # titles and scales; what else is logged has its own name, and a linear scale
    "loss": ("Loss", "log"),
    "grad_norm": ("Gradient norm", "log"),
    "images_per_second": ("Images a second", "linear"),
    "waiting_for_data": ("Share of the time waiting for data", "linear"),
    "skipped": ("Skipped batches", "linear"),
}
QUARTERS = {f"loss_t_quarter_{i}": f"quarter {i} from data to noise" for i in range(1, 5)}


def curves(runs: list[Collected]) -> list[dict]:
    """A plot a figure, a line a run."""
    logged = dict.fromkeys(key for run in runs for row in run.metrics for key in row)
    named = {key: looks for key, looks in CURVES.items() if key in logged}
    others = {
        key: (key, "linear")
        for key in logged
        if key not in {"step", *CURVES, *QUARTERS} and not _shown_above(key, runs)
    }
    plots = []
    for key, (title, scale) in (named | others).items():
        lines = _lines(runs, key)
        if any(any(line["y"]) for line in lines):  # where no batch was skipped, there is no plot of it
            plots.append(plot(title, lines, {"title": "step"}, {"type": _scale(lines) if scale == "log" else scale}))
    return plots[:1] + _quarters(runs, [key for key in QUARTERS if key in logged]) + plots[1:]


def _shown_above(key: str, runs: list[Collected]) -> bool:
    """Whether these are figures that the runs have with their provenance."""
    return key.startswith("evaluation/") and all(run.evaluations for run in runs if any(key in r for r in run.metrics))


def _lines(runs: list[Collected], key: str) -> list[dict]:
    points = min(POINTS, POINTS_OF_ALL // len(runs))
    lines = []
    for i, run in enumerate(runs):
        rows = [row for row in run.metrics if number(row.get(key)) is not None]
        steps, values = thin([row["step"] for row in rows], [row[key] for row in rows], points)
        lines.append(trace(steps, [float(f"{value:.5g}") for value in values], i, run.name))
    return lines


def _scale(lines: list[dict]) -> str:
    """Logarithmic where it shows every value; a loss with a learned uncertainty may be negative."""
    return "log" if all(y is None or y > 0 for line in lines for y in line["y"]) else "linear"


def _quarters(runs: list[Collected], keys: list[str]) -> list[dict]:
    """One run: four lines in one plot. Several: a line a run, of the quarter that is chosen."""
    if not keys:
        return []
    lines = {key: _lines(runs, key) for key in keys}
    scale = _scale([line for several in lines.values() for line in several])
    title, axes = "Loss by quarter of t", ({"title": "step"}, {"type": scale})
    if len(runs) == 1:
        data = [lines[key][0] | {"name": QUARTERS[key], "meta": i} for i, key in enumerate(keys)]
        return [plot(title, data, *axes, showlegend=True)]
    options = {QUARTERS[key]: ([{"x": line["x"], "y": line["y"]} for line in lines[key]], {}) for key in keys}
    empty = [line | {"x": [], "y": []} for line in lines[keys[0]]]
    return [plot(title, empty, *axes, choices=[choice("t in", options)])]
