"""Image quality against network evaluations for every sampler on a trained model: `make samplers`.

python benchmarks/samplers.py [--workdir runs/samplers] [--num 320] [--nfe 5 10 20 50] [--samplers ddim unipc]

Trains a small network on Fashion-MNIST (experiments/samplers.py) if that is not done, draws the same number of images with
each sampler and prints their Frechet distance to the test images by a classifier of the training images; beside it, how far
the images of deterministic samplers are from those of UniPC-3 in 100 steps, next to the exact solution of the ODE, from the
same noise. All go along even times, but Heun along EDM's. What is there already is not made again. A plot goes to the workdir.
"""

import argparse
import pathlib
import subprocess
import sys

import matplotlib
import numpy as np

import ddpm
from ddpm import names, sampling, sharding

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

CONVERGED = 20  # evaluations by which these are within the noise of a figure
GRIDS = {"heun": "karras"}  # else trailing
HIGHER_ORDER = ("dpm_solver", "dpm_solver_pp", "deis", "unipc", "heun", "pndm")
VARIANTS = {  # beside the defaults
    "ancestral": [{"variance": "beta"}, {"variance": "posterior"}, {"variance": "optimal"}],
    "ddim": [{"eta": 0.0}, {"eta": 1.0}],
    "deis": [{"order": 2}, {"order": 3}],
    "dpm_solver": [{"order": 2}, {"order": 3}],
    "dpm_solver_pp": [
        {"order": 2},
        {"order": 2, "multistep": False},
        {"order": 3},
        {"order": 3, "third_order": "paper"},
    ],
    "unipc": [{"order": 1}, {"order": 2}, {"order": 3}, {"order": 2, "variant": "bh1"}],
    "heun": [{}, {"s_churn": 10.0}],
    "euler": [{"s_churn": 10.0}],  # without churn it is ddim
    "euler_ancestral": [],  # it is ddim with eta
    "pndm": [{"runge_kutta": False}, {"runge_kutta": True}],
    "predictor_corrector": [{"corrections": 0}, {"corrections": 1}],
    "ode": [{"rtol": 1e-2, "atol": 1e-2}, {"rtol": 1e-3, "atol": 1e-3}],
}


def steps_for(name: str, options: dict, nfe: int) -> int | None:
    """Steps of a sampler whose run takes `nfe` evaluations, the last step to no noise being of first order; None to leave it out."""
    if name in HIGHER_ORDER and nfe > CONVERGED:
        return None
    if name == "pndm":
        return nfe - 1 if not options["runge_kutta"] else nfe - 9 if nfe > 12 else None
    if name == "predictor_corrector":
        return nfe // (1 + options["corrections"])
    single = name in ("dpm_solver", "heun") or options.get("multistep") is False
    return -(-nfe // options.get("order", 2)) if single else nfe


def main() -> None:
    """Trains, draws, prints and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/samplers"))
    parser.add_argument("--num", type=int, default=320)
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--samplers", nargs="+", default=sorted(names.public(sampling)))
    arguments = parser.parse_args()
    experiment = ("--config", "experiments/samplers.py", "--workdir", arguments.workdir)
    subprocess.run([sys.executable, "-m", "ddpm.main", *map(str, experiment)], check=True)
    sharding.split_cpu(2)
    run = ddpm.load(arguments.workdir)
    run.config.evaluation.num = arguments.num
    run.config.sampler.batch_size = 250
    exact = images_of(run, dict(sampler="unipc", num_steps=100, order=3))

    print(
        f"\n{arguments.num} images of step {run.step}: FD at NFE, and in brackets the RMS distance to UniPC-3 in 100 steps, in grey levels"
    )
    print("| sampler | " + " | ".join(map(str, arguments.nfe)) + " |\n|---|" + "---:|" * len(arguments.nfe))
    curves = {}
    for name in arguments.samplers:
        run.config.grid.name = GRIDS.get(name, "trailing")
        for options in VARIANTS.get(name, [{}]):
            told = name + "".join(f", {key} {value}" for key, value in options.items())
            cells, curve = [], []
            for nfe in arguments.nfe if name != "ode" else [None]:
                steps = steps_for(name, options, nfe) if nfe else 1
                if not steps:
                    cells.append("")
                    continue
                choice = dict(sampler=name, num_steps=steps, **options)
                record = run.evaluate(**choice)
                fd, counted = record["figures"]["fd"], record["provenance"]["generated"]["nfe"]
                curve.append((counted, fd))
                cells.append(f"{fd:.2f}{distance(run, exact, choice)}" + ("" if counted == nfe else f" at {counted:g}"))
            curves[told] = curve
            print(f"| {told} | " + " | ".join(cells) + " |", flush=True)
    plot(curves, arguments.workdir / "samplers.png")
    print(f"\nplot in {arguments.workdir / 'samplers.png'}")


def images_of(run: ddpm.Run, choice: dict) -> np.ndarray:
    """The images that are evaluated."""
    return run.extracted(**choice).source.pick(range(run.config.evaluation.num)).astype(np.float64)


def distance(run: ddpm.Run, exact: np.ndarray, choice: dict) -> str:
    """Root mean square of the difference to the ODE's images, in brackets, where a sampler solves the ODE."""
    deterministic = choice["sampler"] in ("ddim", "dpm_solver", "dpm_solver_pp", "deis", "unipc", "heun", "pndm", "ode")
    if not deterministic or choice.get("eta") or choice.get("s_churn"):
        return ""
    return f" ({np.sqrt(np.mean((images_of(run, choice) - exact) ** 2)):.2f})"


def plot(curves: dict[str, list[tuple[float, float]]], path: pathlib.Path) -> None:
    """FD against NFE, both on logarithmic axes."""
    figure, axes = pyplot.subplots(figsize=(11, 6), layout="constrained")
    styles = ["-", "--", ":"]
    for i, (told, curve) in enumerate(curves.items()):
        axes.plot(*zip(*curve, strict=True), styles[i // 10], color=f"C{i % 10}", marker="o", markersize=4, label=told)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="network evaluations an image (NFE)",
        ylabel="Frechet distance to the test images",
    )
    axes.grid(which="both", alpha=0.3)
    figure.legend(fontsize=7, loc="outside right upper")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
