"""Seconds and memory of an image in the latent space of an autoencoder, as shares of those in pixels at the same resolution.

python benchmarks/latent_speed.py AUTOENCODER [--num 16] [--repeats 3]

Both models are U-Nets of the width of experiments/latent_flowers.py, with random weights: in pixels with the four levels of
DDPM for 64 x 64, in latents with the experiment's two and the decoder at the end. DPM-Solver++ takes 20 steps; runs take turns.
"""

import argparse
import statistics
import time

import jax

from ddpm import autoencoders, objective, sharding
from ddpm.data.images import Facts, Scale
from ddpm.samplers import sampler
from experiments import latent_flowers

SIZE, CLASSES = 64, tuple("abcde")


def main() -> None:
    """Draws in turn, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("autoencoder")
    parser.add_argument("--num", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    sharding.split_cpu(2)

    made = autoencoders.read(arguments.autoencoder)
    scale = made.scale or Scale((0.0,) * made.channels, (1.0,) * made.channels, made.sha256)
    side = SIZE // made.factor
    latents, pixels = latent_flowers.get_config(), latent_flowers.get_config()
    latents.latents.autoencoder = arguments.autoencoder
    pixels.latents.autoencoder = ""
    pixels.model.unet.update(channel_mult=(1, 2, 2, 2), attention_resolutions=(16,))
    facts = {
        "pixels": Facts((SIZE, SIZE, 3), 1, CLASSES),
        "latents": Facts((side, side, made.channels), 1, CLASSES, scale),
    }
    drawn = {
        name: drawer(config, facts[name], arguments.num) for name, config in (("pixels", pixels), ("latents", latents))
    }

    seconds, memory = {name: [] for name in drawn}, {}
    for repeat in range(arguments.repeats + 1):
        for name, draw in drawn.items():
            began = time.perf_counter()
            memory[name] = draw() / 1e6
            if repeat:  # the first one compiles
                seconds[name].append((time.perf_counter() - began) / arguments.num)
    ratios = [a / b for a, b in zip(seconds["pixels"], seconds["latents"], strict=True)]
    print(f"{SIZE} x {SIZE}, {arguments.num} images at once, median seconds and MB of activations:")
    for name in drawn:
        print(f"{name:8s} {statistics.median(seconds[name]):8.3f} s an image {memory[name]:8.0f} MB")
    print(
        f"ratio    {statistics.median(ratios):8.1f} ({min(ratios):.1f} to {max(ratios):.1f}) {memory['pixels'] / memory['latents']:16.1f}"
    )


def drawer(config, facts, num):
    """() -> bytes of activations, after `num` images are drawn."""
    config.sampler.batch_size = num
    diffusion, mesh = objective.diffusion(config, facts.shape, len(facts.classes)), sharding.data_mesh()
    made = sampler(config, diffusion, facts, mesh, lambda: None)
    params = jax.device_put(jax.jit(diffusion.init)(objective.init_key(config)), sharding.replicated(mesh))

    def draw():
        made(params, num, seed=0)
        (program,) = made._compiled.values()
        return program.memory_analysis().temp_size_in_bytes

    return draw


if __name__ == "__main__":
    main()
