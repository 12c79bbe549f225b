"""Rates of the convolutions of a training step by themselves, ours and PyTorch's in turns: what they leave to gain.

make parity (once, for PyTorch); python benchmarks/speed/convolutions.py [--networks small,cifar10] [--batch 16] [--rounds 5]

Each distinct convolution of our U-Net is run forward, for the gradient of its input and for that of its kernel, as often as
the network has it: images in NHWC, PyTorch's in channels_last, whose oneDNN has the same choice of kernels as in a step. A
rate counts the operations of sums over 3 x 3 pixels, also of ours that go by tiles; DDPM_WINOGRAD=0 times XLA's sums instead.
"""

import argparse
import collections
import functools
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from measure import processor
from networks import NETWORKS, check_peers_installed, names, positive

from ddpm.models import winograd
from ddpm.models.unet import UNet
from ddpm.tuning import tune


def main() -> None:
    """Measures and prints."""
    tune()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=names(NETWORKS), default="small,cifar10")
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args()
    check_peers_installed(parser)
    if not arguments.networks:
        parser.error("--networks: name one or more")
    spawn = multiprocessing.get_context("spawn")
    processes = {who: ProcessPoolExecutor(1, spawn, tune) for who in ("ours", "PyTorch")}
    print(processor())
    print(rounding())
    for network in arguments.networks:
        print(f"\n{network}, batches of {arguments.batch}: GFLOP/s of ours and of PyTorch\n")
        print("| image | kernel | stride | times | " + " | ".join(f"{way}, ours | PyTorch" for way in WAYS) + " |")
        print("|---|---|---:|---:|" + "---:|" * 2 * len(WAYS))
        totals = collections.Counter()
        for (x, kernel, stride), times in sorted(convolutions(network, arguments.batch).items()):
            cells = []
            for way in WAYS:
                rates, operations = measured((x, kernel, stride), way, arguments.rounds, processes)
                for who, took in rates.items():
                    totals[way, who] += times * took
                    cells.append(f"{operations / took / 1e9:.0f}")
            print(
                f"| {'x'.join(map(str, x[1:]))} | {'x'.join(map(str, kernel))} | {stride} | {times} | {' | '.join(cells)} |"
            )
        cells = [f"{totals[way, who]:.3f} s" for way in WAYS for who in processes]
        print(f"| all | | | | {' | '.join(cells)} |")
        mine, theirs = (sum(took for (_, who), took in totals.items() if who == name) for name in processes)
        print(f"\nAll together: ours {mine:.3f} s, PyTorch {theirs:.3f} s, {theirs / mine:.2f} of its rate", flush=True)


def rounding() -> str:
    """How far a convolution of 256 channels is from that in float64, by tiles and by sums."""
    x, kernel = (
        jax.random.normal(jax.random.key(0), (16, 16, 16, 256)),
        jax.random.normal(jax.random.key(1), (3, 3, 256, 256)),
    )
    sums = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    with jax.enable_x64(True):
        exact = np.asarray(sums(x.astype(float), kernel.astype(float)))

    def relative(y):
        return np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))

    tiles = relative(winograd.convolution(x, kernel, transposed=False))
    return f"Rounding of float32, relative: {tiles:.1e} by tiles, {relative(sums(x, kernel)):.1e} by sums"


def convolutions(network: str, batch: int) -> collections.Counter:
    """(shape of the image, of the kernel, stride) of each convolution: how often it is there."""
    options, size, channels = NETWORKS[network]
    model = UNet(channels, **options)
    x, t = jnp.zeros((batch, size, size, channels)), jnp.zeros(batch)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x, t))
    found, left = collections.Counter(), [jax.make_jaxpr(model.apply)(params, x, t).jaxpr]
    while left:
        for equation in left.pop().eqns:
            left += [value.jaxpr for value in equation.params.values() if hasattr(value, "jaxpr")]
            if equation.primitive.name in ("conv_general_dilated", "winograd"):
                image, kernel = (invar.aval.shape for invar in equation.invars)
                found[image, kernel, equation.params.get("window_strides", [1])[0]] += 1
    return found


WAYS = ("forward", "of the input", "of the kernel")


def measured(given: tuple, way: str, rounds: int, processes: dict) -> tuple[dict, float]:
    """(Seconds of each, operations)."""
    x, (height, width, _, features), stride = given
    out = x[0] * (x[1] // stride) * (x[2] // stride)
    operations = 2 * out * features * height * width * x[3]
    repeats, took = max(1, int(1e9 / operations)), {who: [] for who in processes}
    for _ in range(rounds):
        for who, process in processes.items():
            took[who].append(process.submit(timed, who, given, way, repeats).result())
    return {who: statistics.median(each) for who, each in took.items()}, operations


def timed(who: str, given: tuple, way: str, repeats: int) -> float:
    """Seconds of a call, in a process that only one of the two computes in: both keep their threads awake."""
    run = prepared(who, given, way)
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


@functools.lru_cache(1)
def prepared(who: str, given: tuple, way: str):
    """A call that has been made once."""
    run = {"ours": ours, "PyTorch": pytorch}[who](*given, way)
    run()
    return run


def ours(x: tuple, kernel: tuple, stride: int, way: str):
    """A call of ours."""

    def forward(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return winograd.convolve(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers)

    def backward(argument, x, kernel, g):
        of = functools.partial(forward, x) if argument else lambda x: forward(x, kernel)
        return jax.vjp(of, (x, kernel)[argument])[1](g)[0]

    x, kernel = jnp.ones(x), jnp.ones(kernel)
    if way == "forward":
        compiled, given = jax.jit(forward), (x, kernel)
    else:
        compiled, given = jax.jit(functools.partial(backward, way == "of the kernel")), (x, kernel, forward(x, kernel))
    return lambda: compiled(*given).block_until_ready()


def pytorch(x: tuple, kernel: tuple, stride: int, way: str):
    """A call of PyTorch's."""
    import torch

    padding = kernel[0] // 2
    image = torch.ones(x[0], x[3], x[1], x[2]).to(memory_format=torch.channels_last)
    weight = torch.ones(kernel[3], kernel[2], *kernel[:2]).to(memory_format=torch.channels_last)
    g = torch.nn.functional.conv2d(image, weight, stride=stride, padding=padding)
    if way == "forward":
        return lambda: torch.nn.functional.conv2d(image, weight, stride=stride, padding=padding)
    wanted = [way == "of the input", way == "of the kernel", False]
    both = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, wanted)
    return lambda: torch.ops.aten.convolution_backward(g, image, weight, None, *both)


if __name__ == "__main__":
    main()
