"""Images per second of a training step, ours against diffusers' U-Net in PyTorch: batch, noise, forward, backward, Adam, EMA.

make parity (once, for PyTorch and diffusers); python benchmarks/training_speed.py [--networks digits,fashion,cifar10,imagenet64]
  [--dtype bfloat16] [--batch 128] [--steps 10] [--rounds 5] [--peers eager,channels_last,compiled]

Both clip the gradient, drop out, and take batches from images on the device; runs take turns, and compilation is left out. The share
of the peak is of the floating-point operations of our step, as XLA counts them, to those of a product of matrices of that dtype.
"""

import argparse
import os
import statistics
import time

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import UNet2DModel

from ddpm import build, datasets, objective, sharding
from ddpm.data.images import Dataset
from ddpm.training import loop
from ddpm.training.state import init_state
from experiments import cosine_cifar

NETWORKS = {  # options of ours, image size, channels
    "digits": (dict(channels=24, channel_mult=(1, 2), attention_resolutions=(4,), norm_groups=24), 8, 1),
    "fashion": (dict(channels=32, channel_mult=(1, 2, 2), attention_resolutions=(14,)), 28, 1),
    "cifar10": (dict(channels=128, channel_mult=(1, 2, 2, 2), attention_resolutions=(16,)), 32, 3),
    "imagenet64": (
        dict(channels=192, channel_mult=(1, 2, 3, 4), num_res_blocks=3, attention_resolutions=(16, 8), head_channels=64)
        | dict(scale_shift=True),
        64,
        3,
    ),
}
DROPOUT, CLIP, RATE, DECAY, DATA = 0.1, 1.0, 2e-4, 0.9999, 4096


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="digits,cifar10")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, default=1, help="that a CPU is split into")
    parser.add_argument("--peers", default="eager,channels_last,compiled")
    arguments = parser.parse_args()
    sharding.split_cpu(arguments.devices)
    torch.set_num_threads(os.cpu_count())
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # as convolutions of both, and products of ours, are on an accelerator
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores"
    peak = matmul_peak(arguments.dtype)
    print(f"{name}, jax {jax.__version__}, torch {torch.__version__}, diffusers {diffusers.__version__}")
    print(f"{arguments.dtype}, batches of {arguments.batch}; products of matrices run at {peak / 1e12:.3g} TFLOP/s")
    print(
        "| network | parameters | who | images/s, median (spread) | ours / theirs | share of the peak | first step, s |"
    )
    print("|---|---:|---|---:|---:|---:|---:|")
    for network in arguments.networks.split(","):
        options, size, channels = NETWORKS[network]
        images = np.random.default_rng(0).integers(0, 256, (DATA, size, size, channels), np.uint8)
        run, began = {}, time.perf_counter()
        run["ours"], flops, count = ours(options, images, arguments)
        run["ours"](1)
        first = {"ours": time.perf_counter() - began}
        for peer in filter(None, arguments.peers.split(",")):
            began = time.perf_counter()
            run[peer] = theirs(options, images, arguments, peer, device, count)
            run[peer](1)
            first[peer] = time.perf_counter() - began
        rates = {who: [] for who in run}
        for _ in range(arguments.rounds):
            for who, steps in run.items():
                began = time.perf_counter()
                steps(arguments.steps)
                rates[who].append(arguments.steps * arguments.batch / (time.perf_counter() - began))
        for who, found in rates.items():
            ratio = statistics.median(np.array(rates["ours"]) / np.array(found))
            share = flops * statistics.median(found) / peak
            print(
                f"| {network} | {count:,} | {who} | {statistics.median(found):.4g} ({min(found):.4g} to {max(found):.4g}) "
                f"| {ratio:.2f} | {share:.1%} | {first[who]:.1f} |",
                flush=True,
            )


def matmul_peak(dtype: str) -> float:
    """Floating-point operations a second of a large product of matrices."""
    side = 8192 if jax.default_backend() != "cpu" else 2048
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.dot)
    product(a, a).block_until_ready()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def ours(options, images, arguments):
    """(steps -> None, which trains; floating-point operations an image; parameters)."""
    config = cosine_cifar.get_config()
    config.training.batch_size = arguments.batch
    config.optimizer.update(learning_rate=RATE, warmup_steps=0, clip_norm=CLIP)
    config.model.unet.update(dropout=DROPOUT, dtype=arguments.dtype, **options)
    data, mesh = Dataset(images), sharding.data_mesh()
    replicated = sharding.replicated(mesh)
    diffusion, tx = objective.diffusion(config, data.facts.shape), build.gradient_transformation(config)
    init = jax.jit(lambda key: init_state(diffusion.init(key), tx), out_shardings=replicated)
    state = init(objective.init_key(config))
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), state)
    feed = datasets.batches(config, diffusion, data, split=sharding.split(mesh), replicated=replicated)
    step = build.train_step(config, diffusion, tx)
    scanned = 1 if jax.default_backend() == "cpu" else arguments.steps
    steps, given = loop.Steps(step, feed, 0, abstract, scanned), feed.start(0)

    def train(count):
        nonlocal state
        for _ in range(-(-count // scanned)):
            state, _ = steps(state, next(given), scanned)
        jax.block_until_ready(state)

    def one(state, given):
        return step(state, feed.draw(given, state.batch), jax.random.key(0))

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (abstract, feed.given))
    with jax.default_device(jax.devices("cpu")[0]):  # the GPU's compiler does not say
        flops = jax.jit(one).lower(*shapes).cost_analysis()["flops"] / arguments.batch
    return train, flops, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def theirs(options, images, arguments, peer, device, count):
    """steps -> None, which trains diffusers' network: 'eager', 'channels_last', or that and 'compiled'."""
    width, mults = options["channels"], options["channel_mult"]
    size, channels = images.shape[1], images.shape[3]
    attends = [size // 2**level in options["attention_resolutions"] for level in range(len(mults))]
    network = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[width * mult for mult in mults],
        down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        layers_per_block=options.get("num_res_blocks", 2),
        attention_head_dim=options.get("head_channels"),
        norm_num_groups=options.get("norm_groups", 32),
        resnet_time_scale_shift="scale_shift" if options.get("scale_shift") else "default",
        dropout=DROPOUT,
        downsample_padding=0,
    ).to(device)
    found = sum(weights.numel() for weights in network.parameters())
    if options.get("scale_shift"):  # theirs then has no norm before the attention in the middle
        found += 2 * width * mults[-1]
    assert found == count, f"{found:,} parameters of theirs, and {count:,} of ours"
    if peer != "eager":
        network = network.to(memory_format=torch.channels_last)
    weights = list(network.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, RATE, fused=True)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, device=device), 0)
    data = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1))).to(device)
    forward = torch.compile(network) if peer == "compiled" else network

    def step():
        x_0 = data[torch.randint(len(data), (arguments.batch,), device=device)].float() / 127.5 - 1
        t = torch.randint(1000, (arguments.batch,), device=device)
        eps, share = torch.randn_like(x_0), alpha_bar[t][:, None, None, None]
        x_t = share.sqrt() * x_0 + (1 - share).sqrt() * eps
        if peer != "eager":
            x_t = x_t.to(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            said = forward(x_t, t).sample
        loss = (said.float() - eps).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - DECAY)

    def train(count):
        for _ in range(count):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    return train


if __name__ == "__main__":
    main()
