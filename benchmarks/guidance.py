"""What guidance does: the class that is asked for is met more often, and samples vary less.

python benchmarks/guidance.py [--data digits] [--runs runs] [--num 1000]

Trains, where that is not done, a model that is told classes; for the digits also one that is not, and a classifier of
noised images that guides it. For each scale images of the classes are drawn in turn. Printed are the share that another
classifier, of the real images, takes for the class that was asked for, and the Frechet distance, precision and recall by
its features. A picture of classes (columns) by scales (rows) goes to the run.
"""

import argparse
import pathlib
import subprocess
import sys

import jax
import numpy as np

import ddpm
from ddpm import datasets, pictures, sharding
from ddpm.evaluation.features.classifier import classifier

SCALES = (0.0, 1.0, 2.0, 4.0)
SAMPLER = dict(sampler="ddim", num_steps=50)


def main() -> None:
    """Trains, draws, prints and paints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--num", type=int, default=1000)
    arguments = parser.parse_args()
    names = [f"{arguments.data}_classes"] + ["digits", "digits_classifier"] * (arguments.data == "digits")
    workdirs = {name: arguments.runs / name for name in names}
    for name, workdir in workdirs.items():
        experiment = ("--config", f"experiments/{name}.py", "--workdir", str(workdir))
        subprocess.run([sys.executable, "-m", "ddpm.main", *experiment], check=True)
    sharding.split_cpu(2)
    told = workdirs[names[0]]
    table(told, "classifier-free guidance", [dict(guidance_scale=scale) for scale in SCALES], arguments.num)
    if arguments.data == "digits":
        guides = (str(workdirs["digits_classifier"]),)
        by_classifier = [dict(guidance=dict(classifiers=guides, classifier_scale=scale)) for scale in SCALES]
        table(workdirs["digits"], "classifier guidance of a model that is not told", by_classifier, arguments.num)


def table(workdir: pathlib.Path, title: str, choices: list[dict], num: int) -> None:
    """Prints a row a scale, and saves the picture."""
    run = ddpm.load(workdir)
    run.config.evaluation.update(num=num, metrics=("fid", "pr"))
    run.config.evaluation.features.name = "classifier"
    run.config.sampler.batch_size = 200
    network = classifier(dataset=datasets.dataset(run.config))
    logits = jax.jit(lambda images: network.apply(network.params, images)["logits"])
    classes = range(len(run.facts.classes))

    print(f"\n{title}: {num} images of step {run.step}, ddim in 50 steps, classes in turn")
    print("| scale | asked class | FD | precision | recall |\n|---:|---:|---:|---:|---:|")
    rows = []
    for scale, choice in zip(SCALES, choices, strict=True):
        figures = run.evaluate(labels=classes, **SAMPLER, **choice)["figures"]
        images = run.extracted(labels=classes, **SAMPLER, **choice).source.pick(range(num))
        met = np.mean(np.asarray(logits(images)).argmax(1) == np.arange(num) % len(classes))
        others = " | ".join(f"{figures[name]:.3f}" for name in ("fd", "precision", "recall"))
        print(f"| {scale:g} | {100 * met:.1f} % | {others} |", flush=True)
        rows += [images[k * len(classes) : (k + 1) * len(classes)] for k in range(2)]
    path = workdir / "guidance.png"
    pictures.save_png(path, pictures.grid(np.concatenate(rows), columns=len(classes)))
    print(f"picture in {path}: two rows a scale, {', '.join(f'{scale:g}' for scale in SCALES)} downwards")


if __name__ == "__main__":
    main()
