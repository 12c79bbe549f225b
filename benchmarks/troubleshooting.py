"""What each switch does to which symptom, measured: `python benchmarks/troubleshooting.py runs/troubleshooting`

Trains experiments/digits.py for 800 steps as it is and with one switch at a time, draws 500 samples of each and compares
them with 1,000 training images by their pixels. What is already there is not computed again. Prints a table a symptom.
"""

import argparse
import json
import pathlib
import subprocess
import sys

STEPS, KEPT = 800, "training.save_every=200 training.keep_every=200"
TRAINED = {  # name: what differs from experiments/digits.py
    "as it is": "",
    "learning_rate 0.2, clip_norm off": "optimizer.learning_rate=0.2 optimizer.clip_norm=1e9",
    "learning_rate 0.2": "optimizer.learning_rate=0.2",
    "learning_rate 0.02": "optimizer.learning_rate=0.02",
    "learning_rate 0.02, no warm-up": "optimizer.learning_rate=0.02 optimizer.warmup_steps=0",
    "adam.eps 0": "optimizer.adam.eps=0.0",
    "channels 8": "model.unet.channels=8",
    "channels 48": "model.unet.channels=48",
    "dropout 0.3": "model.unet.dropout=0.3",
    "ema.decay 0 (no EMA)": "ema.decay=0.0",
    "ema.decay 0.9999, no warmup": "ema.decay=0.9999 ema.warmup=False",
    "linear schedule": "schedule.name=linear",
    "T 100": "schedule.T=100",
}
SAMPLED = {  # of the run as it is
    "clip off": "sampler.clip=False",
    "variance beta": "sampler.ancestral.variance=beta",
    **{f"ancestral {n} steps": f"sampler.num_steps={n}" for n in (10, 25)},
    **{f"ddim {n} steps": f"sampler.name=ddim sampler.num_steps={n}" for n in (10, 25, 50)},
}
SYMPTOMS = {
    "Instability, NaN": (
        "as it is",
        "learning_rate 0.02",
        "learning_rate 0.02, no warm-up",
        "learning_rate 0.2",
        "learning_rate 0.2, clip_norm off",
        "adam.eps 0",
    ),
    "Blurry samples": ("as it is", "channels 8", "channels 48", "dropout 0.3"),
    "Colour shift": ("as it is", "ema.decay 0.9999, no warmup", "ema.decay 0 (no EMA)", "clip off"),
    "Slow sampling": (
        "as it is",
        "ancestral 25 steps",
        "ancestral 10 steps",
        *(f"ddim {n} steps" for n in (50, 25, 10)),
    ),
    "Schedule and noise": ("as it is", "linear schedule", "T 100", "variance beta"),
}
COLUMNS = {  # where a record has it
    "loss": "loss",
    "skipped": "skipped",
    "max grad norm": "grad_norm",
    "fd": "figures.fd",
    "precision": "figures.precision",
    "recall": "figures.recall",
    "sharpness": "figures.sharpness",
    "mean drift": "figures.mean_drift_grey",
    "spread drift": "figures.spread_drift_grey",
    "memorised": "figures.memorised",
    "NFE": "provenance.generated.nfe",
}


def main(place: pathlib.Path) -> None:
    """Trains, evaluates and prints."""
    place.mkdir(parents=True, exist_ok=True)
    for name, changes in TRAINED.items():
        steps = f"training.num_steps={STEPS} training.sample_every={STEPS} training.evaluate_every=0 {KEPT}"
        if not (place / slug(name) / "metrics.jsonl").exists():
            command(place / slug(name), *overrides(f"{steps} {changes}"), may_fail=name == "adam.eps 0")
    trained = {name: evaluate(place / slug(name)) for name in TRAINED if (place / slug(name) / "loss.png").exists()}
    measured = {name: training(place / slug(name)) | trained.get(name, {}) for name in TRAINED}
    base = place / slug("as it is")
    measured |= {name: training(base) | evaluate(base, *overrides(changes)) for name, changes in SAMPLED.items()}
    for symptom, names in SYMPTOMS.items():
        print(f"\n{symptom}\n\n| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        for name in names:
            print(f"| {name} | {' | '.join(cell(look_up(measured[name], path)) for path in COLUMNS.values())} |")
    print("\nA loss that looks flat\n\n| step | loss of the 200 steps before | fd |\n|---|---|---|")
    for step in (200, 400, 600, 800):
        rows = [row["loss"] for row in metrics(base) if step - 200 < row["step"] <= step]
        print(f"| {step} | {sum(rows) / len(rows):.3f} | {evaluate(base, f'--step={step}')['figures']['fd']:.3f} |")


def look_up(record: dict, path: str) -> float | None:
    """A value of a record; None where it has none."""
    for key in path.split("."):
        record = record.get(key, {})
    return None if record == {} else record


def slug(name: str) -> str:
    """A directory's name."""
    return "".join(c if c.isalnum() or c == "." else "_" for c in name)


def overrides(changes: str) -> list[str]:
    """Flags of the command, of 'key=value key=value'."""
    return [f"--config.{change}" for change in changes.split()]


def command(workdir: pathlib.Path, *flags: str, may_fail: bool = False) -> None:
    """Runs ddpm's command as a user would; without --config flags, by the run's own configuration."""
    config = ["--config=experiments/digits.py"] if any(flag.startswith("--config.") for flag in flags) else []
    command = [sys.executable, "-m", "ddpm.main", *config, "--workdir", str(workdir), *flags]
    subprocess.run(command, check=not may_fail, stdout=subprocess.DEVNULL)


def evaluate(workdir: pathlib.Path, *flags: str) -> dict:
    """The record that an evaluation adds."""
    command(workdir, "--mode=eval", "--metrics=fid,pr,drift,memorisation", *flags)
    return json.loads((workdir / "evaluation.jsonl").read_text().splitlines()[-1])


def metrics(workdir: pathlib.Path) -> list[dict]:
    """Rows of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def training(workdir: pathlib.Path) -> dict:
    """What is told of a run's training: its last losses, batches skipped, the largest gradient."""
    rows = metrics(workdir)
    last = [row["loss"] for row in rows[-4:] if "loss" in row]
    return {
        "loss": sum(last) / len(last) if last else None,
        "skipped": sum(row["skipped"] for row in rows),
        "grad_norm": max((row["grad_norm"] for row in rows if "grad_norm" in row), default=None),
    }


def cell(value: float | None) -> str:
    """A figure in few letters."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path)
    main(parser.parse_args().workdir)
