"""Figures with their provenance, one evaluation a line of workdir/evaluation.jsonl."""

import datetime
import json
import pathlib

from ddpm.evaluation.extract import Extracted
from ddpm.evaluation.metrics import HIGHER_IS_BETTER, Figures
from ddpm.evaluation.network import FeatureNetwork

FILE = "evaluation.jsonl"


def record(
    figures: Figures, generated: Extracted, real: Extracted, network: FeatureNetwork, versions: dict[str, str]
) -> dict:
    """Figures and all that they depend on: what was compared with what, seen by which network under which rule, made by
    which versions."""
    return {
        "figures": figures,
        "provenance": {
            "generated": generated.about,
            "reference": real.about,
            "features": of_network(network),
            "versions": versions,
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
        },
    }


def of_network(network: FeatureNetwork) -> dict[str, str]:
    """What makes two feature networks the same, as JSON."""
    return {"name": network.name, "sha256": network.sha256, "rule": network.rule}


def store(workdir: pathlib.Path, new: dict) -> None:
    """Adds a record to a run's; one of the same images, reference and network is completed and renewed."""
    rows, merged = [], new
    for row in read(workdir):
        if _subject(row) == _subject(new):
            merged = new | {"figures": row["figures"] | new["figures"]}
        else:
            rows.append(row)
    part = workdir / f".{FILE}"
    part.write_text("".join(json.dumps(row) + "\n" for row in [*rows, merged]))
    part.replace(workdir / FILE)


def read(workdir: pathlib.Path) -> list[dict]:
    """The records of a run, oldest first; a line cut short by a crash is passed over."""
    path = workdir / FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def best_step(workdir: pathlib.Path, figure: str) -> int | None:
    """The step that did best by a figure among the evaluations of its training; None before the first."""
    scores = {
        row["provenance"]["generated"]["step"]: row["figures"][figure]
        for row in read(workdir)
        if row["provenance"]["generated"].get("when") == "training" and figure in row["figures"]
    }
    sign = -1 if figure in HIGHER_IS_BETTER else 1
    return min(scores, key=lambda step: (sign * scores[step], step), default=None)


def _subject(row: dict) -> tuple:
    provenance = row["provenance"]
    return provenance["generated"], provenance["reference"], provenance["features"]
