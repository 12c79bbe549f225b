"""Time per image of DDIM, ours against diffusers' pipeline: the same architecture, weights and steps, in turns.

make parity (once, for PyTorch and diffusers); python benchmarks/sampling_speed.py [--rounds 5] [--steps 5]

Compilation is left out, as is diffusers' first run. Both use all cores.
"""

import argparse
import functools
import math
import os
import pathlib
import statistics
import sys
import time

import diffusers
import jax
import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
from parity.carried import carried  # noqa: E402

from ddpm import sharding  # noqa: E402
from ddpm.condition import Condition  # noqa: E402
from ddpm.diffusion import predictions  # noqa: E402
from ddpm.diffusion.model import Model  # noqa: E402
from ddpm.diffusion.processes import VP  # noqa: E402
from ddpm.diffusion.schedules import linear  # noqa: E402
from ddpm.models.unet import UNet  # noqa: E402
from ddpm.sampling import grids  # noqa: E402
from ddpm.sampling.batched import BatchedSampler  # noqa: E402
from ddpm.sampling.ddim import ddim  # noqa: E402
from ddpm.sampling.guidance import alone  # noqa: E402

DIFFUSERS = {"norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
NETWORKS = {  # name: our channels, our multiples, image size, channels, images a batch
    "digits": (24, (1, 2), 8, 1, 16),
    "fashion": (32, (1, 2, 2), 28, 1, 16),
    "cifar10": (128, (1, 2, 2, 2), 32, 3, 4),
}


PROCESS = VP(linear(1000))


def model(network: UNet, params: dict, condition: Condition) -> Model:
    """Our network at given parameters, which says eps."""
    return Model(PROCESS, predictions.eps(), lambda x, t: network.apply({"params": params}, x, t))


def diffusers_network(channels: int, mults: tuple[int, ...], size: int, image_channels: int) -> UNet2DModel:
    """Diffusers' network, with attention at the second of the levels."""
    levels = range(len(mults))
    return UNet2DModel(
        sample_size=size,
        in_channels=image_channels,
        out_channels=image_channels,
        block_out_channels=[channels * mult for mult in mults],
        down_block_types=["AttnDownBlock2D" if level == 1 else "DownBlock2D" for level in levels],
        up_block_types=["AttnUpBlock2D" if level == 1 else "UpBlock2D" for level in reversed(levels)],
        layers_per_block=2,
        attention_head_dim=None,
        norm_num_groups=math.gcd(32, channels),
        **DIFFUSERS,
    ).eval()


def check_same(ours: UNet, params: dict, theirs: UNet2DModel, shape: tuple[int, ...]) -> None:
    """Raises AssertionError if the networks do not say the same."""
    x, t = np.random.default_rng(0).standard_normal(shape, np.float32), np.array([1, 900])
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.moveaxis(x, -1, 1)), torch.from_numpy(t)).sample
    found = jax.jit(lambda params: ours.apply({"params": params}, x, t))(params)
    np.testing.assert_allclose(np.moveaxis(np.asarray(found), -1, 1), expected, atol=1e-4)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    torch.set_num_threads(os.cpu_count())
    print(
        f"{os.cpu_count()} cores, jax {jax.__version__}, torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    print(
        "| network | parameters | ours, s an image | diffusers | ratio, median of rounds |\n|---|---:|---:|---:|---:|"
    )
    for name, (channels, mults, size, image_channels, batch) in NETWORKS.items():
        theirs = diffusers_network(channels, mults, size, image_channels)
        ours, params_for = carried(theirs)
        shape = (2, size, size, image_channels)
        params = params_for(np.zeros(shape, np.float32), np.zeros(2))
        mesh = sharding.data_mesh()
        asked = functools.partial(model, ours)
        sampler = BatchedSampler(
            asked,
            alone(asked),
            lambda forward, _: ddim(forward),
            grids.leading(PROCESS, arguments.steps),
            (size, size, image_channels),
            clip=True,
            batch_size=batch,
            replicated=sharding.replicated(mesh),
            split=sharding.split(mesh),
        )
        params = jax.device_put(params, sharding.replicated(mesh))
        check_same(ours, params, theirs, shape)
        theirs = theirs.to(memory_format=torch.channels_last)  # which is faster
        pipeline = DDIMPipeline(theirs, DDIMScheduler(timestep_spacing="leading", clip_sample=True))
        pipeline.set_progress_bar_config(disable=True)
        run = {
            "ours": lambda sampler=sampler, params=params, batch=batch: sampler(params, batch, seed=0),
            "theirs": lambda pipeline=pipeline, batch=batch: pipeline(
                batch, num_inference_steps=arguments.steps, output_type="np"
            ),
        }
        took = {who: [] for who in run}
        for turn in range(arguments.rounds + 1):
            for who, draw in run.items():
                began = time.perf_counter()
                draw()
                if turn:  # the first compiles
                    took[who].append((time.perf_counter() - began) / batch)
        ratio = statistics.median(np.array(took["theirs"]) / np.array(took["ours"]))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        middle = {who: statistics.median(times) for who, times in took.items()}
        print(f"| {name} | {count:,} | {middle['ours']:.4f} | {middle['theirs']:.4f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
