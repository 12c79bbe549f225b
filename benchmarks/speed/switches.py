"""What each setting of ddpm/tuning.py, and Winograd's convolution, does for a training step on a CPU: with all, and with each off, in turns.

make parity (once, for PyTorch); python benchmarks/speed/switches.py [--network small] [--batch 16] [--steps 3] [--rounds 8]

A rate is that of the median round; the ratio is to the same round with all settings on. Memory is the most after the first step.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

from measure import Contestant, about
from networks import NETWORKS, positive

from ddpm.tuning import LITTLE_MEMORY, YNNPACK

OFF = {  # what the environment says
    "all on": {},
    "convolutions by sums": {"DDPM_WINOGRAD": "0"},
    "XLA without YNNPACK": {"XLA_FLAGS": LITTLE_MEMORY},
    "XLA in more memory": {"XLA_FLAGS": YNNPACK},
    "glibc gives memory back": {"MALLOC_PERTURB_": "0"},  # which is so anyway, and leaves the allocator as it is
    "steps ahead of time": {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"},
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--steps", type=positive, default=3, help="a turn")
    parser.add_argument("--rounds", type=positive, default=8)
    arguments = parser.parse_args()
    replaces = ("LD_PRELOAD", "GLIBC_TUNABLES", "JAX_NUM_CPU_DEVICES", *(name for of in OFF.values() for name in of))
    if said := [name for name in os.environ if name in replaces or name.startswith("MALLOC_")]:
        parser.error(f"the environment has {', '.join(said)}, so not all would be on: unset them")
    arguments.dtype, arguments.devices = "float32", 1
    print(about(arguments))
    with tempfile.TemporaryDirectory() as folder:
        contestants, rates = {}, {}
        for what, environment in OFF.items():
            cache = pathlib.Path(folder) / what
            cache.mkdir()
            contestants[what] = Contestant("ours", arguments.network, arguments, cache, **environment)
        arguments.devices = 2
        (pathlib.Path(folder) / "two").mkdir()
        contestants["two devices"] = Contestant("ours", arguments.network, arguments, pathlib.Path(folder) / "two")
        for turn in range(arguments.rounds + 1):
            for what, made in contestants.items():
                took = made("train", steps=arguments.steps)
                if turn:  # the first one warms up
                    rates.setdefault(what, []).append(took["steps"] * arguments.batch / took["seconds"])
        print(f"\n| {arguments.network} | images/s | ratio (spread) | memory, GB |\n|---|---:|---:|---:|")
        for what, made in contestants.items():
            ratios = [a / b for a, b in zip(rates[what], rates["all on"], strict=True)]
            memory = made("peak")["resident"] / 1e9
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {what} | {statistics.median(rates[what]):.3g} | {ratio} | {memory:.2f} |")
            made.close()


if __name__ == "__main__":
    main()
