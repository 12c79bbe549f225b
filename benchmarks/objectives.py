"""Trains a small model with each objective on the same budget, and prints what each reaches: `make objectives`.

python benchmarks/objectives.py [--workdir runs/objectives] [--images 32] [--samples 500] [objective ...]

Figures: the variational bound and the likelihood of the probability-flow ODE on Fashion-MNIST's test images, and the
Frechet distance of samples to those, by a classifier of the training images. What is there already is not made again. At the
end, the variance of the gradient of L_vlb with uniform and with importance-sampled times, from the same parameters.
"""

import argparse
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from ddpm import build, datasets, objective
from ddpm.evaluation import records
from ddpm.rng import stream
from ddpm.training import checkpoint
from ddpm.training.state import init_state
from experiments import objectives

COLUMNS = {
    "bound": "vlb_bpd",
    "its data term": "vlb_data_bpd",
    "ODE": "ode_bpd",
    "ODE NFE": "ode_nfe",
    "FD": "fd",
    "precision": "precision",
    "recall": "recall",
}


def command(*arguments: str) -> None:
    """Runs `python -m ddpm.main`; its errors end this."""
    subprocess.run([sys.executable, "-m", "ddpm.main", *map(str, arguments)], check=True)


def figures(workdir: pathlib.Path) -> dict[str, float]:
    """The newest of each figure of a run."""
    return {name: value for row in records.read(workdir) for name, value in row["figures"].items()}


def reach(objective: str, workdir: pathlib.Path, images: int, samples: int) -> dict[str, float]:
    """Trains and evaluates, where that is not done."""
    experiment = ("--config", f"experiments/objectives.py:{objective}", "--workdir", workdir)
    if not figures(workdir):
        command(*experiment)
    if not {"vlb_bpd", "ode_bpd"} <= figures(workdir).keys():
        command(*experiment, "--mode", "eval", "--metrics", "vlb_bpd,ode_bpd", "--num", images)
    if "fd" not in figures(workdir):
        command(*experiment, "--mode", "eval", "--metrics", "fid,pr", "--num", samples)
    return figures(workdir)


def gradient_variance(workdir: pathlib.Path, batches: int = 64) -> dict[str, float]:
    """Trace of the covariance of a batch's gradient of L_vlb, by how times are drawn."""
    config = objectives.get_config("vlb_importance")
    diffusion, tx = objective.diffusion(config, (28, 28, 1)), build.gradient_transformation(config)
    images = datasets.dataset(config).images
    pixels = np.stack([images[i] for i in range(4096)])
    importance = objective.times_drawn(config, diffusion.process)
    abstract = jax.eval_shape(
        lambda key: init_state(diffusion.init(key), tx, importance.history), objective.init_key(config)
    )
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), abstract)
    directory = workdir.absolute() / "checkpoints"
    state = checkpoint.read_state(directory, checkpoint.steps_in(directory)[-1], abstract)
    config.timesteps.name = "uniform"
    loss, uniform = objective.loss(config), objective.times_drawn(config, diffusion.process)

    def gradient(draw, params, batch, key):
        u_key, eps_key = jax.random.split(key)
        t, weight = draw(state.history, jax.random.uniform(u_key, (len(batch),)))
        eps = jax.random.normal(eps_key, batch.shape)
        mean = lambda p: jnp.mean(weight * loss.per_example(diffusion.model(p), batch, eps, t))  # noqa: E731
        return jax.flatten_util.ravel_pytree(jax.grad(mean)(params))[0]

    found = {}
    for name, draw in {"uniform": uniform.draw, "importance": importance.draw}.items():
        step = jax.jit(lambda *given, draw=draw: gradient(draw, *given))
        total, squares = 0.0, 0.0
        for i in range(batches):
            batch = jnp.asarray(pixels[i * 64 % 4096 :][:64], jnp.float32) / 127.5 - 1
            g = np.asarray(step(state.ema_params, batch, jax.random.fold_in(stream(0, "variance"), i)), np.float64)
            total, squares = total + g, squares + (g**2).sum()
        mean = total / batches
        found[name] = (squares / batches - (mean**2).sum()) * batches / (batches - 1)
    return found


def main() -> None:
    """Trains, evaluates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/objectives"))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("objectives", nargs="*", default=list(objectives.OBJECTIVES))
    arguments = parser.parse_args()
    reached = {
        name: reach(name, arguments.workdir / name, arguments.images, arguments.samples)
        for name in arguments.objectives
    }
    print("| objective | " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * len(COLUMNS))
    for name, found in reached.items():
        cells = [_cell(found, figure) for figure in COLUMNS.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if "vlb_importance" in reached:
        found = gradient_variance(arguments.workdir / "vlb_importance")
        ratio = found["uniform"] / found["importance"]
        print(f"\nvariance of the gradient of L_vlb: {found}, {ratio:.2f} times less by importance sampling")


def _cell(found: dict[str, float], figure: str) -> str:
    if figure not in found:
        return ""
    error = found.get(f"{figure}_stderr")
    return (
        f"{found[figure]:.3f}" + (f" ± {error:.3f}" if error else "") if figure != "ode_nfe" else f"{found[figure]:.0f}"
    )


if __name__ == "__main__":
    main()
