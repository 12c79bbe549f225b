"""What a compiled training step sends between devices, counted in its program, beside the formula of launch/README.md.

JAX_NUM_CPU_DEVICES=8 python benchmarks/collectives.py [--fsdp 8] [--tensor 1] [--channels 64]

Of a U-Net on fake devices, in bytes of results on each: an all-gather brings split parameters together, for the forward and again
for the backward pass; an all-reduce, or a reduce-scatter, sums gradients.
"""

import argparse
import collections
import math
import re

import jax

from ddpm import build, datasets, objective, sharding
from ddpm.data.images import Dataset
from ddpm.training import loop
from ddpm.training.state import init_state
from experiments import cosine_cifar

BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1, "f64": 8}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def main() -> None:
    """Compiles, counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fsdp", type=int, default=8)
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--channels", type=int, default=64)
    arguments = parser.parse_args()
    text, abstract = compiled(arguments.fsdp, arguments.tensor, arguments.channels)
    sent, leaves = counted(text), jax.tree.leaves(abstract.params)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    split = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if not leaf.sharding.is_fully_replicated)
    print(f"parameters: {whole:,} bytes, of which {split:,} are split; {jax.device_count()} devices")
    for kind, (count, size) in sent.items():
        print(f"{kind:20s} {count:5d} of {size:14,} bytes, {size / whole:.2f} times the parameters")


def compiled(fsdp: int, tensor: int, channels: int):
    """(The program of a step on all devices, in text; the state's shapes and shardings.)"""
    import numpy as np

    config = cosine_cifar.get_config()
    config.training.batch_size = jax.device_count()
    config.model.unet.update(
        channels=channels, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(), dropout=0
    )
    data, mesh = Dataset(np.zeros((64, 16, 16, 3), np.uint8)), sharding.training_mesh(fsdp, tensor)
    diffusion, tx = objective.diffusion(config, data.facts.shape), build.gradient_transformation(config)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.of_state(mesh, leaf.shape)),
        jax.eval_shape(lambda key: init_state(diffusion.init(key), tx), objective.init_key(config)),
    )
    feed = datasets.batches(config, diffusion, data, split=sharding.split(mesh), replicated=sharding.replicated(mesh))
    return loop.Steps(build.train_step(config, diffusion, tx), feed, 0, abstract, 1).text(), abstract


def counted(text: str) -> dict[str, tuple[int, int]]:
    """Kind of message -> how many there are, and the bytes of their results on each device."""
    found = collections.defaultdict(lambda: (0, 0))
    for line in text.splitlines():
        match = re.match(rf"\s*(?:ROOT )?\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(BYTES.get(kind, 4) * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in shapes)
            count, total = found[match[2]]
            found[match[2]] = count + 1, total + size
    return dict(found)


if __name__ == "__main__":
    main()
