"""Memory of a training step against its batch, with and without remat, ours and diffusers': what is kept besides the state.

make parity (once, for PyTorch and diffusers); python benchmarks/memory.py [--networks cifar10,imagenet64] [--batches 8,32,128]
  [--dtype bfloat16] [--limit 80]

Ours is what XLA plans for the step that is compiled here (`memory_analysis`); PyTorch's is the sum of the tensors that autograd
keeps for the backward pass, which is what its peak has at least; gradients are part of ours, and of PyTorch's state. The largest
batch is where the straight line through the figures of its two largest reaches the limit, in GB, less its state: in small batches
of a large network the gradients are the most that a step holds at once, whatever the batch. As XLA plans large batches otherwise,
the line of ours is drawn again through the plan of the batch that it gave.
"""

import argparse
import math
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "speed"))
from networks import CLIP, DROPOUT, NETWORKS, check_peers_installed, names, positives  # noqa: E402

from ddpm import build, datasets, objective, sharding  # noqa: E402
from ddpm.data.images import Dataset  # noqa: E402
from ddpm.training import loop  # noqa: E402
from ddpm.training.state import init_state  # noqa: E402
from ddpm.tuning import tune  # noqa: E402
from experiments import cosine_cifar  # noqa: E402


def main() -> None:
    """Measures and prints."""
    tune()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=names(NETWORKS), default="cifar10,imagenet64")
    parser.add_argument("--batches", type=positives, default="8,16,32", help="two or more")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--limit", type=float, default=80)
    arguments = parser.parse_args()
    check_peers_installed(parser)
    batches = sorted(set(arguments.batches))
    if not arguments.networks:
        parser.error("--networks: name one or more")
    if not 0 < arguments.limit < math.inf:
        parser.error(f"--limit: {arguments.limit} is no number of GB above 0")
    if len(batches) < 2:
        parser.error("--batches: a line needs two or more of them")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {arguments.dtype}; GB")
    heads = (f"batch {batch}" for batch in batches)
    print(f"| network | state | who | {' | '.join(heads)} | an image | largest batch in {arguments.limit:g} GB |")
    print("|---|---:|---|" + "---:|" * (len(batches) + 2))
    for network in arguments.networks:
        for who in ("ours", "ours, remat", "diffusers"):
            if who == "diffusers":
                found = [kept(network, batch, arguments.dtype) for batch in batches]
            else:
                found = [planned(network, batch, arguments.dtype, remat=who != "ours") for batch in batches]
            state, sizes = found[0][0], [size for _, size in found]
            try:
                slope, largest = line(batches, sizes, arguments.limit * 1e9 - state)
                if who != "diffusers" and largest > batches[-1]:
                    _, size = planned(network, largest, arguments.dtype, remat=who != "ours")
                    slope, largest = line([batches[-1], largest], [sizes[-1], size], arguments.limit * 1e9 - state)
            except ValueError as error:
                raise SystemExit(f"{network}, {who}: {error}") from error
            cells = " | ".join(f"{size / 1e9:.2f}" for size in sizes)
            print(f"| {network} | {state / 1e9:.2f} | {who} | {cells} | {slope / 1e9:.3f} | {largest:,} |", flush=True)


def line(batches: list[int], sizes: list[int], limit: float) -> tuple[float, int]:
    """(Bytes of an image, batch that takes the limit), by the straight line through the two largest batches.

    Raises:
      ValueError: they take as much.
    """
    slope = (sizes[-1] - sizes[-2]) / (batches[-1] - batches[-2])
    if slope <= 0:
        raise ValueError(f"batches of {batches[-2]} and {batches[-1]} take as much: give larger --batches")
    return slope, max(0, int(batches[-1] + (limit - sizes[-1]) / slope))


def planned(network: str, batch: int, dtype: str, *, remat: bool) -> tuple[int, int]:
    """(Bytes of the state, bytes that our step takes besides)."""
    options, size, channels = NETWORKS[network]
    config = cosine_cifar.get_config()
    config.training.batch_size = batch
    config.optimizer.clip_norm = CLIP
    config.model.unet.update(dropout=DROPOUT, dtype=dtype, remat=remat, **options)
    data, mesh = Dataset(np.zeros((batch, size, size, channels), np.uint8)), sharding.data_mesh()
    diffusion, tx = objective.diffusion(config, data.facts.shape), build.gradient_transformation(config)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
        jax.eval_shape(lambda key: init_state(diffusion.init(key), tx), objective.init_key(config)),
    )
    feed = datasets.batches(config, diffusion, data, split=sharding.split(mesh), replicated=sharding.replicated(mesh))
    steps = loop.Steps(build.train_step(config, diffusion, tx), feed, 0, abstract, 1)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract)), steps.activations()


def kept(network: str, batch: int, dtype: str) -> tuple[int, int]:
    """(Bytes of weights, gradients, Adam and EMA, bytes that autograd keeps) of diffusers' network."""
    import torch
    from theirs import diffusers

    options, size, channels = NETWORKS[network]
    model = diffusers(options, size, channels).to(memory_format=torch.channels_last).train()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        said = model(x, torch.zeros(batch, dtype=int)).sample
        loss = said.square().mean()
    assert loss.requires_grad  # what is kept lives as long as it
    return 5 * sum(weight.nbytes for weight in model.parameters()), sum(sizes.values())


if __name__ == "__main__":
    main()
