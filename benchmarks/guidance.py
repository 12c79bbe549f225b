"""What classifier-free guidance does to a model with classes: the class is met more often, and samples vary less.

python benchmarks/guidance.py [--config experiments/digits_classes.py] [--workdir runs/digits_classes] [--num 1000]

Trains, if that is not done, and for each scale draws images of the classes in turn. Printed are the share that a classifier
of the real images takes for the class that was asked for, and the Frechet distance, precision and recall by its features;
a picture of classes (columns) by scales (rows) goes to the workdir.
"""

import argparse
import pathlib
import subprocess
import sys

import jax
import numpy as np

import ddpm
from ddpm import build, pictures
from ddpm.evaluation.features.classifier import classifier
from ddpm.training import sharding

SCALES = (0.0, 1.0, 2.0, 4.0)


def main() -> None:
    """Trains, draws, prints and paints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/digits_classes.py")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/digits_classes"))
    parser.add_argument("--num", type=int, default=1000)
    arguments = parser.parse_args()
    experiment = ("--config", arguments.config, "--workdir", str(arguments.workdir))
    subprocess.run([sys.executable, "-m", "ddpm.main", *experiment], check=True)
    sharding.split_cpu(2)
    run = ddpm.load(arguments.workdir)
    run.config.evaluation.num = arguments.num
    run.config.sampler.batch_size = 200
    network = classifier(dataset=build.dataset(run.config))
    logits = jax.jit(lambda images: network.apply(network.params, images)["logits"])
    classes = range(len(run.facts.classes))

    print(f"{arguments.num} images of step {run.step}, ddim in 50 steps, classes in turn")
    print("| scale | asked class | FD | precision | recall |\n|---:|---:|---:|---:|---:|")
    rows = []
    for scale in SCALES:
        choice = dict(sampler="ddim", num_steps=50, labels=classes, guidance_scale=scale)
        figures = run.evaluate(**choice)["figures"]
        images = run.extracted(**choice).source.pick(range(arguments.num))
        asked = np.arange(len(images)) % len(classes)
        met = np.mean(np.asarray(logits(images)).argmax(1) == asked)
        told = [figures[name] for name in ("fd", "precision", "recall")]
        print(f"| {scale:g} | {100 * met:.1f} % | " + " | ".join(f"{figure:.3f}" for figure in told) + " |", flush=True)
        rows += [images[k * len(classes) : (k + 1) * len(classes)] for k in range(2)]
    path = arguments.workdir / "guidance.png"
    pictures.save_png(path, pictures.grid(np.concatenate(rows), columns=len(classes)))
    print(f"\npicture in {path}: two rows a scale, {', '.join(f'{scale:g}' for scale in SCALES)} downwards")


if __name__ == "__main__":
    main()
