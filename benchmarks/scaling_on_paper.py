"""Memory, communication and efficiency of a training step on 8, 256 and 4,096 chips, on paper: no accelerator is needed.

python benchmarks/scaling_on_paper.py [--fit 0.9] [--unet_share 0.3] [--dit_share 0.4]

Parameters, how the rule of `ddpm/sharding.py` splits them, floating-point operations and activations are those of this repository's
models, by abstract shapes; rates are those of data sheets. `launch/README.md` has the tables that this prints and the assumptions in words.
"""

import argparse
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from ddpm import objective, sharding
from ddpm.condition import Condition
from experiments import dit_imagenet256, imagenet64


class Chip(NamedTuple):
    """An accelerator and its links: bytes, bytes a second one way, operations of bfloat16 a second."""

    name: str
    peak: float
    memory: float
    memory_rate: float
    inner: float  # to the chips of its domain
    domain: int  # chips that are joined so
    outer: float  # to other domains
    inner_name: str
    outer_name: str
    torus_from: int  # chips from which on a slice is a torus; a smaller one has half of the links


CHIPS = (
    Chip("H100", 989e12, 80e9, 3.35e12, 450e9, 8, 50e9, "NVLink", "InfiniBand", 0),
    Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, 256, 3.125e9, "ICI", "DCN", 256),
    Chip("TPU v5p", 459e12, 102e9, 2765e9, 600e9, 6144, 6.25e9, "ICI", "DCN", 64),
)
FSDP = (1, 8, 256)  # mesh.fsdp: chips that share a copy of the state; 1 is data parallel
SIZES = ((8, 32), (256, 8), (4096, 1))  # chips, images on each: the batch that trains well grows slower than machines
FLOAT = 4  # bytes: parameters, their EMA, gradients, and Adam's m and v are float32
STATE = 4 * FLOAT  # of a parameter: itself, EMA, m, v
UPDATE = 9 * FLOAT  # moved by an update, of a parameter: gradient and state are read, the state is written


class Cost(NamedTuple):
    """Of a model: parameters, those that are split by mesh.fsdp, those of its largest block; of an image: operations, bytes kept."""

    parameters: int
    split: dict[int, int]
    block: int
    flops: float
    activations: float


def cost(config, shape: tuple[int, int, int]) -> Cost:
    """Traces the loss and its gradient of one and of two images; what the second adds is what an image costs."""
    made, loss = objective.diffusion(config, shape, 1000), objective.loss(config)
    params = jax.eval_shape(made.init, jax.random.key(0))

    def mean(params, x_0, eps, t, labels):
        bound = made.model(params, Condition(labels=labels), train=True, key=jax.random.key(0))
        return loss.per_example(bound, x_0, eps, t).mean()

    def of(images):
        image = jax.ShapeDtypeStruct((images, *shape), jnp.float32)
        t, labels = (jax.ShapeDtypeStruct((images,), dtype) for dtype in (jnp.float32, jnp.int32))
        given = (params, image, image, t, labels)
        kept = jax.eval_shape(lambda *given: jax.vjp(mean, *given)[1], *given)
        flops = jax.jit(jax.value_and_grad(mean)).lower(*given).cost_analysis()["flops"]
        return flops, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))

    (flops_1, kept_1), (flops_2, kept_2) = of(1), of(2)
    split = {fsdp: split_by(params, fsdp) for fsdp in FSDP}
    return Cost(size(params), split, max(map(size, params.values())), flops_2 - flops_1, kept_2 - kept_1)


def split_by(params, fsdp: int) -> int:
    """Numbers in the arrays that are split over so many devices; the others are copied to each."""
    mesh = AbstractMesh((1, fsdp, 1), ("data", "fsdp", "tensor"))
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    return sum(math.prod(s) for s in shapes if sharding.of_state(mesh, s).shard_shape(s) != s)


def size(tree) -> int:
    """Numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def moved(chip: Chip, chips: int, sent: float) -> tuple[float, float]:
    """Bytes that a chip sends over (inner, outer) links so that all have an array of which each has a part.

    Rings inside of a domain of d chips and between the m domains, one after the other: sent (d - 1) / d, and (sent / d) (m - 1) / m.
    To reduce and scatter takes as much, and to reduce to all is both.
    """
    inside = min(chips, chip.domain)
    outside = chips // inside
    return sent * (inside - 1) / inside, sent / inside * (outside - 1) / outside


def inner_rate(chip: Chip, chips: int) -> float:
    """Bytes a second of the inner links that so many chips can use."""
    return chip.inner / (2 if chips < chip.torus_from else 1)


def communication(chip: Chip, chips: int, fsdp: int, parameters: int, split: int) -> tuple[float, float, float]:
    """(Bytes sent by a chip, seconds on its inner links, seconds on its outer ones) of a step.

    What is split is gathered forward and backward and its gradient reduced and scattered, among `fsdp` chips; then the gradient is
    reduced among those with the same part. The gradient of what is not split is reduced among all.
    """
    shared, among = moved(chip, fsdp, FLOAT * split), moved(chip, chips, FLOAT * split)
    copied = moved(chip, chips, FLOAT * (parameters - split))
    rest = [2 * (a - b + c) for a, b, c in zip(among, shared, copied, strict=True)]
    inner = 3 * shared[0] / inner_rate(chip, fsdp) + rest[0] / inner_rate(chip, chips)
    return 3 * sum(shared) + sum(rest), inner, (3 * shared[1] + rest[1]) / chip.outer


def row(chip: Chip, chips: int, images: int, fsdp: int, plain: Cost, remat: Cost, share: float, fit: float) -> str:
    """A line of the table."""
    split = plain.split[fsdp]
    own = plain.parameters - split + split / fsdp
    kept = (STATE + FLOAT) * own + (
        2 * FLOAT * plain.block if split else 0
    )  # two blocks are whole: this one and the next
    model = next((c for c in (plain, remat) if kept + images * c.activations <= fit * chip.memory), None)
    name = f"| {chip.name} | {chips:,} x {images} | {fsdp} | "
    if model is None:
        return name + f"{(kept + images * remat.activations) / 1e9:.1f}: does not fit | | | | | | |"
    memory = kept + images * model.activations
    sent, inner, outer = communication(chip, chips, fsdp, plain.parameters, split)
    links = inner + outer
    compute = images * model.flops / (share * chip.peak)
    update = UPDATE * own / chip.memory_rate
    # Gradients leave while the rest of the backward pass, two thirds of the work, is computed; what is split is gathered in both.
    hidden = min(links, compute if split else compute * 2 / 3)
    worst, best = (compute / (compute + update + links - h) for h in (0, hidden))
    named = {"compute": compute, "update": update, chip.inner_name: inner, chip.outer_name: outer}
    return name + (
        f"{memory / 1e9:.1f}{' (remat)' if model is remat else ''} | {sent / 1e9:.2f} | {1e3 * compute:.1f} | {1e3 * update:.1f} "
        f"| {1e3 * links:.1f} | {worst:.0%} to {best:.0%} | {max(named, key=named.get)} "
        f"| {links / compute * images:.1f} |"
    )


def main() -> None:
    """Prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=float, default=0.9, help="share of the memory that may be used")
    parser.add_argument("--unet_share", type=float, default=0.3, help="of the peak that the U-Net's operations reach")
    parser.add_argument("--dit_share", type=float, default=0.4, help="the DiT's")
    arguments = parser.parse_args()
    unet, dit = imagenet64.get_config("conditional"), dit_imagenet256.get_config()
    dit.model.dit.update(width=2048, depth=26, num_heads=16)
    for config, shape, share in ((unet, (64, 64, 3), arguments.unet_share), (dit, (32, 32, 4), arguments.dit_share)):
        section = config.model[config.model.name]
        plain, remat = (cost(section.update(dtype="bfloat16", remat=remat) or config, shape) for remat in (False, True))
        print(
            f"\n{config.model.name} on {shape}: {plain.parameters:,} parameters, {plain.split[8]:,} of them split by 8, "
            f"{plain.split[256]:,} by 256, the largest block {plain.block:,}; an image "
            f"{plain.flops / 1e9:.0f} GFLOP ({remat.flops / 1e9:.0f} with remat) and {plain.activations / 1e6:.0f} MB "
            f"of activations ({remat.activations / 1e6:.0f}); {share:.0%} of the peak\n"
        )
        print(
            "| chip | chips x images | mesh.fsdp | GB a chip | GB sent | compute, ms | update, ms | links, ms | efficiency | most time | balance |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|")
        for chip in CHIPS:
            for chips, images in SIZES:
                for fsdp in (fsdp for fsdp in FSDP if fsdp <= chips):
                    print(row(chip, chips, images, fsdp, plain, remat, share, arguments.fit))


if __name__ == "__main__":
    main()
