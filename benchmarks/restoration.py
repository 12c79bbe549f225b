"""Held-out Fashion-MNIST images from a quarter of their resolution, and with a hole, restored by trained and by plain models.

python benchmarks/restoration.py [--runs runs] [--num 500]

Trains fashion_super_resolution, fashion_inpainting and, for what needs no training of its own, samplers, where that is not
done. Printed are the peak signal-to-noise ratio against the true images (in the hole alone, where there is one) and the
Frechet distance to the test images by a classifier of the training images. A picture goes to each trained run.
"""

import argparse
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import ddpm
from ddpm import datasets, pictures, sharding
from ddpm.data.pixels import to_images, to_pixels
from ddpm.degradation import block_means, rectangle
from ddpm.rng import per_index, stream

FACTOR, SHOWN = 4, 16
SAMPLER = dict(sampler="dpm_solver_pp", num_steps=20)
PLAIN = dict(sampler="ancestral", num_steps=100)  # what is known is told by the noise of each step


def main() -> None:
    """Trains, restores, prints and paints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--num", type=int, default=500)
    arguments = parser.parse_args()
    workdirs = {name: arguments.runs / name for name in ("fashion_super_resolution", "fashion_inpainting", "samplers")}
    for name, workdir in workdirs.items():
        experiment = ("--config", f"experiments/{name}.py", "--workdir", str(workdir))
        subprocess.run([sys.executable, "-m", "ddpm.main", *experiment], check=True)
    sharding.split_cpu(2)
    runs = {name: ddpm.load(workdir) for name, workdir in workdirs.items()}
    for run in runs.values():
        run.config.sampler.batch_size = 125
    config = runs["samplers"].config.copy_and_resolve_references()
    config.data.tfds.split = "test"
    test = datasets.dataset(config)
    chosen = np.random.default_rng(0).permutation(len(test.images))[: arguments.num]
    truth = np.stack([test.images[int(i)] for i in chosen])
    x_0 = to_images(jnp.asarray(truth))

    low = to_pixels(block_means(x_0, FACTOR))
    larger = jax.image.resize(to_images(low), x_0.shape, "cubic")
    given = _saved(workdirs["fashion_super_resolution"] / "given.npz", arr_0=low)
    known = dict(name="super_resolution", super_resolution=dict(factor=FACTOR))
    restored = {
        "cubic interpolation": np.asarray(to_pixels(larger)),
        "trained for it": runs["fashion_super_resolution"].sample(arguments.num, given=given, **SAMPLER),
        "untrained, block means kept": runs["samplers"].sample(arguments.num, given=given, known=known, **PLAIN),
    }
    _report(runs["samplers"], f"{FACTOR} x super-resolution", restored, truth, np.ones(truth.shape, bool))
    small = np.asarray(to_pixels(jnp.asarray(to_images(low)).repeat(FACTOR, 1).repeat(FACTOR, 2)))
    _paint(workdirs["fashion_super_resolution"], [small, *restored.values(), truth])

    keys = per_index(stream(0, "hole"), jnp.arange(arguments.num))
    hole = np.asarray(jax.vmap(lambda key: rectangle(key, truth.shape[1:3]))(keys))
    empty = np.where(hole[..., None], 128, truth).astype(np.uint8)
    given = _saved(workdirs["fashion_inpainting"] / "given.npz", arr_0=truth, known=~hole)
    plain = dict(given=given, **PLAIN)
    restored = {
        "the hole grey": empty,
        "trained for it": runs["fashion_inpainting"].sample(arguments.num, given=given, **SAMPLER),
        "untrained, each step once": runs["samplers"].sample(arguments.num, known=dict(name="inpainting"), **plain),
        "untrained, each step 5 times (RePaint)": runs["samplers"].sample(
            arguments.num, known=dict(name="inpainting", resamples=5), **plain
        ),
    }
    for told, images in restored.items():
        assert (images[~hole] == truth[~hole]).all(), told
    _report(runs["samplers"], "inpainting; known pixels are as given", restored, truth, hole[..., None])
    _paint(workdirs["fashion_inpainting"], [*restored.values(), truth])


def _saved(path: pathlib.Path, **arrays: np.ndarray) -> str:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return str(path)


def _report(run: ddpm.Run, title: str, restored: dict[str, np.ndarray], truth: np.ndarray, where: np.ndarray) -> None:
    evaluator = run.evaluator()
    print(f"\n{title}: {len(truth)} test images\n| | PSNR | FD |\n|---|---:|---:|")
    for told, images in restored.items():
        error = np.mean((images.astype(float) - truth)[np.broadcast_to(where, truth.shape)] ** 2)
        file = _saved(run.workdir / "restored.npz", arr_0=images)
        fd = evaluator(evaluator.images(file, None))["figures"]["fd"]
        print(f"| {told} | {10 * np.log10(255**2 / error):.2f} dB | {fd:.3f} |", flush=True)


def _paint(workdir: pathlib.Path, rows: list[np.ndarray]) -> None:
    path = workdir / "restored.png"
    pictures.save_png(path, pictures.grid(np.concatenate([row[:SHOWN] for row in rows]), columns=SHOWN))
    print(f"picture in {path}: rows as in the table, the true images last")


if __name__ == "__main__":
    main()
