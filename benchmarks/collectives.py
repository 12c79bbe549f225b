"""What a compiled training step sends between devices, counted in its program, beside the formula of launch/README.md.

JAX_NUM_CPU_DEVICES=8 python benchmarks/collectives.py [--fsdp 8] [--tensor 1] [--channels 64] [--batch_size 8]
python benchmarks/collectives.py --scaling

Of a U-Net on fake devices, in bytes of results on each: an all-gather brings split parameters together, for the forward and again
for the backward pass; an all-reduce, or a reduce-scatter, sums gradients. With --scaling a table for 1 to 8 devices, of one process
and of several, and batches that stay as large in all (strong scaling) or on each device (weak): bytes sent, and how many more
operations all devices do than one would.
"""

import argparse
import collections
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax

from ddpm import build, datasets, objective, sharding
from ddpm.data.images import Dataset
from ddpm.distribution import TRIPLE, start
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
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--json", action="store_true", help="print figures for --scaling")
    arguments = parser.parse_args()
    if arguments.scaling:
        for line in scaling(arguments.channels):
            print(line, flush=True)
        return
    start(None)
    program, abstract = compiled(arguments.fsdp, arguments.tensor, arguments.channels, arguments.batch_size)
    sent, leaves = counted(program.as_text()), jax.tree.leaves(abstract.params)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    split = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if not leaf.sharding.is_fully_replicated)
    if arguments.json:
        operations = program.cost_analysis()["flops"]
        print(json.dumps({"sent": sum(size for _, size in sent.values()), "flops": operations, "parameters": whole}))
        return
    print(f"parameters: {whole:,} bytes, of which {split:,} are split; {jax.device_count()} devices")
    for kind, (count, size) in sent.items():
        print(f"{kind:20s} {count:5d} of {size:14,} bytes, {size / whole:.2f} times the parameters")


def scaling(channels: int) -> Iterator[str]:
    """Lines of Markdown: strong scaling with 64 images in all, weak scaling with 8 a device."""
    yield "| processes x devices | mesh.fsdp | images a device | sent by each, of the parameters | operations beside one device's |"
    yield "|---|---:|---:|---:|---:|"
    alone = {}
    for processes, devices in ((1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (4, 2)):
        count = processes * devices
        for fsdp in sorted({1, count}):
            for batch_size in sorted({64, 8 * count}, reverse=True):
                options = dict(channels=channels, fsdp=fsdp, batch_size=batch_size)
                found = elsewhere(processes, devices, options)
                if batch_size not in alone:
                    alone[batch_size] = elsewhere(1, 1, options | {"fsdp": 1})["flops"]
                more = count * found["flops"] / alone[batch_size] - 1
                sent = found["sent"] / found["parameters"]
                yield f"| {processes} x {devices} | {fsdp} | {batch_size // count} | {sent:.2f} | {more:+.1%} |"


def elsewhere(processes: int, devices: int, options: dict) -> dict:
    """What this script finds as so many processes with so many fake devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__, "--json", *(f"--{name}={value}" for name, value in options.items())]
    started = []
    for number in range(processes):
        told = dict(zip(TRIPLE, (address, str(processes), str(number)), strict=True)) | {
            "JAX_NUM_CPU_DEVICES": str(devices)
        }
        started.append(subprocess.Popen(command, env=os.environ | told, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{' '.join(command)} failed on {processes} x {devices}")
    return json.loads(said[0].splitlines()[-1])  # Gloo writes there as well


def compiled(fsdp: int, tensor: int, channels: int, batch_size: int = 8):
    """(The program of a step on all devices; the state's shapes and shardings.)"""
    import numpy as np

    config = cosine_cifar.get_config()
    config.training.batch_size = batch_size
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
    return loop.Steps(build.train_step(config, diffusion, tx), feed, 0, abstract, 1).compiled(), abstract


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
