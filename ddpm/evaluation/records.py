"""Figures with their provenance, one evaluation a line of workdir/evaluation.jsonl."""

import datetime
import json
import math
import pathlib
from collections.abc import Callable, Collection, Iterable

from ddpm.evaluation.metrics import HIGHER_IS_BETTER, NEAR, NEITHER, Figures
from ddpm.evaluation.network import FeatureNetwork

FILE = "evaluation.jsonl"
OF_A_STEP = ("step", "params_sha256", "pixels_sha256")


def record(figures: Figures, generated: dict, real: dict, features: dict, settings: dict, versions: dict) -> dict:
    """Figures and all that they depend on: what was compared with what, seen by which network under which rule, by
    metrics of which settings, made by which versions; all as JSON."""
    return {
        "figures": figures,
        "provenance": {
            "generated": generated,
            "reference": real,
            "features": features,
            "metrics": settings,
            "versions": versions,
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
        },
    }


def of_network(network: FeatureNetwork) -> dict[str, str]:
    """What makes two feature networks the same, as JSON."""
    return {"name": network.name, "sha256": network.sha256, "rule": network.rule}


def identity(images: dict) -> dict:
    """What makes two sets of images the same: all that is known of them but the name, which may be a path spelt anyhow."""
    return {key: value for key, value in images.items() if key != "name"}


def store(workdir: pathlib.Path, new: dict) -> None:
    """Adds a record to a run's. Figures of the same images, reference, network and versions are renewed: they are taken
    out of the record that had them, in which the others keep their own provenance."""
    rows = []
    for row in read(workdir):
        if _subject(row) == _subject(new):
            kept = {name: value for name, value in row["figures"].items() if name not in new["figures"]}
            rows += [row | {"figures": kept}] if kept else []
        else:
            rows.append(row)
    _write(workdir, [*rows, new])


def forget_after(workdir: pathlib.Path, step: int) -> None:
    """Drops what a training evaluated beyond the step that it goes on from."""
    rows = read(workdir)
    kept = [row for row in rows if not _of_training(row) or _generated(row)["step"] <= step]
    if len(kept) < len(rows):
        _write(workdir, kept)


def read(workdir: pathlib.Path) -> list[dict]:
    """The records of a run, oldest first; a line that is none, as after a crash, is passed over."""
    return rows(workdir / FILE, is_record)[0]


def rows(file: pathlib.Path, valid: Callable[[object], bool]) -> tuple[list[dict], int]:
    """The lines of a file of JSON that are valid, and the number of those that are not; none if there is no file."""
    found, broken = [], 0
    for line in file.read_text(errors="replace").splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if valid(row):
            found.append(row)
        else:
            broken += bool(line.strip())
    return found, broken


def is_record(row: object) -> bool:
    """Whether JSON is a record."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("figures"), dict)
        and isinstance(row.get("provenance"), dict)
        and isinstance(row["provenance"].get("generated"), dict)
    )


def aim(figure: str) -> float | int | None:
    """Where a figure's better values lie: a number that they are near to, or infinitely high or low; None for nowhere."""
    if figure in NEITHER:
        return None
    if figure in HIGHER_IS_BETTER:
        return math.inf
    return next((value for name, value in NEAR.items() if figure.startswith(name)), -math.inf)


def best(figure: str, values: Iterable[float]) -> float | None:
    """The best of some values of a figure; None where there is none, or low is as bad as high."""
    to, finite = aim(figure), [value for value in values if math.isfinite(value)]
    if to is None or not finite:
        return None
    if math.isinf(to):
        return max(finite) if to > 0 else min(finite)
    return min(finite, key=lambda value: abs(value - to))


def best_step(workdir: pathlib.Path, figure: str, among: Collection[int] | None = None) -> int | None:
    """The step that did best by a figure in the evaluations of its training, of those made as the newest one; the first of
    equals; None before the first evaluation.

    Args:
      among: steps to choose from; None for all.
    """
    made = [row for row in read(workdir) if _of_training(row) and figure in row["figures"]]
    scores = {_generated(row)["step"]: row["figures"][figure] for row in made if _way(row) == _way(made[-1])}
    scores = {step: value for step, value in scores.items() if among is None or step in among}
    value = best(figure, scores.values())
    return min((step for step in scores if scores[step] == value), default=None)


def while_training(workdir: pathlib.Path, figure: str) -> dict[int, float]:
    """A figure by step, of the evaluations of a run's training."""
    made = {_generated(row)["step"]: row["figures"] for row in read(workdir) if _of_training(row)}
    return {step: made[step][figure] for step in sorted(made) if figure in made[step]}


def _write(workdir: pathlib.Path, rows: list[dict]) -> None:
    part = workdir / f".{FILE}"
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(workdir / FILE)  # at no moment is there less than a whole file


def _generated(row: dict) -> dict:
    return row["provenance"]["generated"]


def _of_training(row: dict) -> bool:
    generated = _generated(row)
    return generated.get("when") == "training" and isinstance(generated.get("step"), int)


def _rule(row: dict) -> list:
    provenance = row["provenance"]
    return [identity(provenance.get("reference", {})), provenance.get("features")]


def _subject(row: dict) -> list:
    return [identity(_generated(row)), *_rule(row), row["provenance"].get("versions")]


def _way(row: dict) -> list:
    """How a step was evaluated: what has to be the same for its figures to be compared with another step's."""
    return [{k: v for k, v in identity(_generated(row)).items() if k not in OF_A_STEP}, *_rule(row)]
