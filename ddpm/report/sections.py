"""The sections of a page but for its plots: runs, samples, figures, legend, setup."""

import datetime
import math
from collections.abc import Callable
from html import escape

from ddpm.config import flat, in_use
from ddpm.evaluation.records import best
from ddpm.report.collect import PICTURES, Collected
from ddpm.report.markup import Tips, cell, element, picture, select, sorted_table, text, tip, values
from ddpm.report.plots import COLOURS, dash
from ddpm.report.sweep import last
from ddpm.report.table import NO_SAMPLES, Row, Table, heading, settings_that_vary, unsaid

ALWAYS = ("step", "sampler", "nfe")  # columns of how samples were generated; others where they vary
NAMED = 3  # runs that a note names


def subtitle(runs: list[Collected]) -> str:
    """What the runs are, in one line."""
    made = f"{datetime.datetime.now():%Y-%m-%d %H:%M}"
    if len(runs) > 1:
        return f"{len(runs)} runs · {made}"
    run = runs[0]
    told = [str(run.workdir), *([f"step {run.step:,}"] if run.step is not None else []), *_model(run).values(), made]
    return " · ".join(told)


def notes(runs: list[Collected]) -> str:
    """What is missing or could not be read."""
    of = {}
    for run in runs:
        for note in run.notes:
            of.setdefault(note, []).append(run.name)
    lines = []
    for note, names in of.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append((f"{', '.join(names[:NAMED])}{more}: " if len(runs) > 1 else "") + note)
    return element("ul", "".join(element("li", escape(line)) for line in lines), class_="notes") if lines else ""


def runs_table(runs: list[Collected], figures: Table, keys: list[str], tips: Tips) -> str:
    """A line a run: its step, the keys that differ, its newest figures and the samples they are of."""
    newest = [figures.newest(i) for i in range(len(runs))]
    generated = _generated_columns([row for row in newest if row])
    rows = []
    for i, (run, row) in enumerate(zip(runs, newest, strict=True)):
        config = in_use(run.config)
        rows.append(
            [
                cell(run.name, _key(i) + " " + escape(run.name), head=True, title=run.name),
                *(cell(value) for value in (run.step, last(run, "loss"), last(run, "images_per_second"))),
                *(cell(config.get(key)) for key in keys),
                *(cell(row.generated.get(key) if row else None) for key in generated),
                *_figure_cells(figures, row, newest, tips),
            ]
        )
    groups = [("", 4, None), ("Configuration: keys that differ", len(keys), None)]
    groups += [("Newest figures: samples of", len(generated), None), *_rule_groups(figures, tips)]
    heads = ["run", "step", "loss", "images/s", *keys, *map(_short, generated), *_figure_heads(figures)]
    return sorted_table(heads, rows, [group for group in groups if group[1]])


def figures_table(runs: list[Collected], figures: Table, tips: Tips) -> str:
    """A line a set of samples; its figures by rule, with provenance on hover."""
    if not figures.rows:
        return ""
    generated = _generated_columns(figures.rows)
    several = len(runs) > 1
    rows = []
    for row in reversed(figures.rows):
        first = [cell(runs[row.run].name, head=True, title=runs[row.run].name)] if several else []
        settings = [cell(row.generated.get(key), head=key == generated[0] and not several) for key in generated]
        rows.append([*first, *settings, *_figure_cells(figures, row, figures.rows, tips)])
    groups = [("", several + len(generated), None), *_rule_groups(figures, tips)]
    heads = ["run"] * several + list(map(_short, generated)) + _figure_heads(figures)
    first = next((row.generated for row in figures.rows if row.is_sampled), {})
    same = {
        k: v for k, v in first.items() if v is not None and k not in generated and not unsaid(k) and k != "num_steps"
    }
    told = ", ".join(f"{_short(key)} {text(value)}" for key, value in same.items())
    caption = (
        f"↑ higher is better, ↓ lower. Hover or tap a figure for how it was made.{' All samples: ' * bool(told)}{told}"
    )
    return element("p", escape(caption), class_="quiet") + sorted_table(heads, rows, groups)


def chosen_run(runs: list[Collected], section: Callable[[Collected], str]) -> str:
    """A section of each run, of which the chosen one is shown."""
    parts = [section(run) for run in runs]
    if not any(parts):
        return ""
    # Every picker offers all runs, since one choice is for all of them.
    names = {i: run.name for i, run in enumerate(runs)}
    picker = select("Run", names, class_="run", autocomplete="off") if len(runs) > 1 else ""
    nothing = element("p", f"This run has no {section.__name__} to show.", class_="quiet")
    return element("div", picker, class_="choices") * bool(picker) + "".join(
        element("div", inner or nothing, class_="of-run", data_run=i, hidden=i != 0) for i, inner in enumerate(parts)
    )


def samples(run: Collected) -> str:
    """Sample grids by step, EMA beside raw parameters; the path from noise; nearest neighbours."""
    sheets = []
    for step, kinds in run.grids.items():
        shown = "".join(picture(content, f"{kind} parameters, step {step:,}") for kind, content in kinds.items())
        sheets.append(element("div", shown, class_="pair", data_step=f"step {step:,}", hidden=step != max(run.grids)))
    slider = ""
    if len(sheets) > 1:
        end = len(sheets) - 1
        knob = f'<input type="range" min="0" max="{end}" value="{end}" aria-label="step" autocomplete="off">'
        slider = element("div", knob + element("output", f"step {max(run.grids):,}"), class_="slider")
    others = "".join(picture(run.pictures[file], PICTURES[file]) for file in PICTURES if file in run.pictures)
    left_out = f"{len(sheets)} of {len(sheets) + run.grids_left_out} sample grids are shown here."
    quiet = element("p", left_out, class_="quiet") if run.grids_left_out else ""
    grids = element("div", slider + "".join(sheets) + quiet) if sheets else ""
    return grids + (element("div", others, class_="pictures") if others else "")


def training(runs: list[Collected], plots: str) -> str:
    """The legend of all curves, and the curves."""
    if len(runs) == 1 or not plots:
        return plots
    buttons = [
        element("button", _key(i) + escape(run.name), type="button", data_run=i, aria_pressed="true")
        for i, run in enumerate(runs)
    ]
    buttons += [element("button", state, type="button", data_all="on" * (state == "all")) for state in ("all", "none")]
    return element("div", "".join(buttons), class_="legend", role="group", aria_label="runs shown") + plots


def setup(run: Collected) -> str:
    """Data, model, environment and configuration of a run."""
    if not run.record:
        return ""
    parts = {"Data and model": values(_model(run)), "Environment": values(run.record.get("versions", {}))}
    facts = "".join(element("div", element("h3", name) + inner) for name, inner in parts.items())
    unused = flat(run.config).keys() - in_use(run.config).keys()
    summary = element("summary", "Whole configuration (in italics: options of choices that were not made)")
    whole = element("details", summary + values(flat(run.config), unused))
    return element("div", facts, class_="facts") + whole


def _model(run: Collected) -> dict[str, str]:
    """Data and model in words, as far as the record tells."""
    told, facts, config = {}, run.record.get("facts", {}), run.config
    if "shape" in facts:
        told["data"] = f"{config['data']['name']}: {facts['count']:,} images of {' × '.join(map(str, facts['shape']))}"
        names = list(map(str, facts.get("classes") or ()))
        few = f": {', '.join(names)}" if len(names) <= 10 else ""
        told["classes"] = f"{len(names)} classes{few}" if names else ""
    if leaves := {k: v for k, v in run.record.get("leaves", {}).items() if k.startswith("params/")}:
        size = sum(math.prod(leaf["shape"]) for leaf in leaves.values())
        autoencoder = config.get("autoencoder", {}).get("name")
        name = f"autoencoder {autoencoder}" if autoencoder else config["model"]["name"]
        told["model"] = f"{name}: {size:,} parameters"
    return {name: words for name, words in told.items() if words}


def _key(run: int) -> str:
    """A stroke in the colour and dashes of a run."""
    dashes = "" if dash(run) == "solid" else f' stroke-dasharray="{dash(run).replace("px", "")}"'
    stroke = f'stroke="var(--c{run % COLOURS})" stroke-width="2.5"{dashes}'
    return f'<svg class="key" viewBox="0 0 22 8" aria-hidden="true"><path d="M0 4h22" {stroke}/></svg>'


def _generated_columns(rows: list[Row]) -> list[str]:
    """Keys of how samples were generated that are columns: those always of interest, and those that vary."""
    varied = settings_that_vary(rows)
    known = dict.fromkeys(key for row in rows for key in row.generated)
    return [key for key in known if key in ALWAYS or key in varied or key == NO_SAMPLES]


def _short(key: str) -> str:
    return key.removeprefix("sampler_options.")


def _rule_groups(figures: Table, tips: Tips) -> list[tuple]:
    """Headings over the figures of each rule, the whole rule on hover."""
    counts = [sum(rule == i for _, rule in figures.columns) for i in range(len(figures.rules))]
    pairs = zip(figures.rules, counts, strict=True)
    return [(rule.label, count, tips.add(rule.values)) for rule, count in pairs if count]


def _figure_heads(figures: Table) -> list[str]:
    return [heading(name) for name, _ in figures.columns]


def _figure_cells(figures: Table, row: Row | None, among: list[Row | None], tips: Tips) -> list[str]:
    """The figures of a row, the best samples of each column bold."""
    cells = []
    for column in figures.columns:
        here = row.cells.get(column) if row else None
        if here is None:
            cells.append(cell(None))
            continue
        rivals = [other for other in among if other and other.is_sampled and column in other.cells]
        others = [other.cells[column].value for other in rivals]
        is_best = row.is_sampled and len(others) > 1 and here.value == best(column[0], others)
        shown = text(float(here.value)) + (f" ± {text(float(here.std))}" if here.std is not None else "")
        told = tips.add(flat(here.provenance))
        cells.append(cell(here.value, escape(shown), class_="best" * is_best, **tip(told)))
    return cells
