"""One HTML page of runs with everything in it: it needs no network and no other file."""

import importlib.resources
import json
import string
from html import escape

from ddpm.report import sections
from ddpm.report.collect import Collected
from ddpm.report.curves import curves
from ddpm.report.markup import Tips, element, select
from ddpm.report.quality import figures_over_steps, quality_against_nfe
from ddpm.report.sweep import differing_keys, sweep
from ddpm.report.table import table


def page(runs: list[Collected], title: str) -> str:
    """The page of one or more runs, as HTML."""
    from plotly.offline import get_plotlyjs  # half a second

    figures, keys, tips, specs = table(runs), differing_keys(runs), Tips(), []
    several = len(runs) > 1

    def plots(*new: dict) -> str:
        places = "".join(_place(spec, len(specs) + i) for i, spec in enumerate(new))
        specs.extend(spec | {"of_several_runs": several} for spec in new)
        return element("div", places, class_="plots") if new else ""

    parts = {
        "Runs": sections.runs_table(runs, figures, keys, tips) + plots(*sweep(runs, figures, keys)) if several else "",
        "Samples": sections.chosen_run(runs, sections.samples),
        "Figures": sections.figures_table(runs, figures, tips)
        + plots(*quality_against_nfe(runs, figures), *figures_over_steps(runs, figures)),
        "Training": sections.training(runs, plots(*curves(runs))),
        "Setup": sections.chosen_run(runs, sections.setup),
    }
    parts = {name: inner for name, inner in parts.items() if inner}
    main = sections.notes(runs) + "".join(
        element("section", element("h2", name) + inner, id=name.lower()) for name, inner in parts.items()
    )
    asset = importlib.resources.files(__package__).joinpath
    return string.Template(asset("page.html").read_text()).substitute(
        title=escape(title),
        subtitle=escape(sections.subtitle(runs)),
        nav="".join(element("a", name, href=f"#{name.lower()}") for name in parts),
        main=main + tips.templates(),
        css=asset("page.css").read_text(),
        js=asset("page.js").read_text(),
        plotly=get_plotlyjs(),
        plots=json.dumps(specs, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def _place(spec: dict, number: int) -> str:
    """Where page.js draws a plot, with its heading and drop-downs."""
    choices = "".join(
        select(c["label"], {i: option["label"] for i, option in enumerate(c["options"])}) for c in spec["choices"]
    )
    heading = element("h3", escape(spec["title"])) + (element("div", choices, class_="choices") if choices else "")
    drawn = element("div", class_="plot", data_plot=number, style=f"min-width: {spec['min_width']}px")
    inner = element("div", heading, class_="heading") + element("div", drawn, class_="scroll")
    return element("figure", inner, class_="wide" if spec["wide"] else None)
