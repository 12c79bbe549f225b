"""Do the metrics order what everyone agrees on? `python benchmarks/metric_order.py runs/fashion --num 1000`

Against 5,000 training images of a run: held-out real images, samples at the end of training, samples half-way (keep that
checkpoint: --config.training.keep_every), and uniform noise. A distance must rise in this order, a share fall.
"""

import argparse
import itertools
import pathlib
import sys

import numpy as np

import ddpm
from ddpm import datasets
from ddpm.data.images import Dataset
from ddpm.evaluation.metrics import HIGHER_IS_BETTER
from ddpm.evaluation.sources import of_dataset

METRICS = ("fid", "fid_infinity", "kid", "pr", "dc")
NUM_REFERENCE = 5000  # of the training images: manifolds cost its square
NO_RANK = ("kd_std", "kid_std")


def main(workdir: pathlib.Path, num: int, features: str, step: int | None) -> bool:
    """Prints the figures; whether all are in order."""
    run = ddpm.load(workdir, step)
    half = ddpm.load(workdir, run.step // 2)
    config, name = run.config, datasets.data_name(run.config).removesuffix(":train")
    config.evaluation.update(metrics=METRICS, num=num, num_reference=min(NUM_REFERENCE, run.facts.count))
    config.evaluation.features.name = features
    half.config.evaluation, evaluator = config.evaluation, run.evaluator()
    noise = np.random.default_rng(0).integers(0, 256, (num, *run.facts.shape), dtype=np.uint8)

    compared = {
        f"held-out ({name}:test)": evaluator.images(f"{name}:test", num),
        f"step {run.step}": run.extracted(sampler="ddim", num_steps=50),
        f"step {half.step}": half.extracted(sampler="ddim", num_steps=50),
        "uniform noise": evaluator.samples(of_dataset(Dataset(noise), "noise"), None),
    }
    figures = {about: evaluator(images)["figures"] for about, images in compared.items()}
    names = [figure for figure in next(iter(figures.values())) if figure not in NO_RANK]
    print(f"\n{num} images each, DDIM in 50 steps, seen by {evaluator.network.name} ({evaluator.network.rule})")
    print("".join(f"{cell:>14s}" for cell in ["", *names]))
    for about, row in figures.items():
        print(f"{about:30s}" + "".join(f"{row[figure]:14.4g}" for figure in names))
    ordered = {figure: _ordered(figure, [row[figure] for row in figures.values()]) for figure in names}
    print("in order: " + ", ".join(f"{figure} {'yes' if yes else 'NO'}" for figure, yes in ordered.items()))
    return all(ordered.values())


def _ordered(figure: str, values: list[float]) -> bool:
    sign = -1 if figure in HIGHER_IS_BETTER else 1
    return all(sign * a <= sign * b for a, b in itertools.pairwise(values))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--features", default="classifier")
    parser.add_argument("--step", type=int)
    given = parser.parse_args()
    sys.exit(not main(given.workdir, given.num, given.features, given.step))
