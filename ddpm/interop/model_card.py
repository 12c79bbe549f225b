"""The README.md of weights that are given away."""

from typing import Any


def card(*, name: str, parts: dict[str, Any], records: list[dict], config: str) -> str:
    """A model card as Markdown.

    Args:
      name: of the model; `parts`: facts about it, by what they are.
      records: of evaluation.jsonl, whose figures it states with what they were measured on.
      config: of the run, as JSON.
    """
    lines = ["---", "library_name: diffusers", "license: other", "tags: [diffusion]", "---", "", f"# {name}", ""]
    lines += ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in parts.items()), "", "## Figures", ""]
    lines += _figures(records) if records else ["None measured: `python -m ddpm.main --mode eval` does."]
    lines += ["", "## Configuration", "", "```json", config, "```", ""]
    return "\n".join(lines)


def _figures(records):
    rows = ["| figure | value | of | against | seen by |", "|---|---:|---|---|---|"]
    for record in records:
        about = record["provenance"]
        made, real, network = (about.get(key) or {} for key in ("generated", "reference", "features"))
        how = " ".join(str(made[key]) for key in ("num", "sampler") if key in made)
        how += f", {made['nfe']:g} evaluations an image" if "nfe" in made else ""
        how += f", step {made['step']}" if "step" in made else ""
        against = " ".join(str(real[key]) for key in ("num", "name") if key in real)
        for name, value in record["figures"].items():
            rows.append(f"| {name} | {value:.4g} | {how} | {against} | {network.get('name', '')} |")
    return rows
