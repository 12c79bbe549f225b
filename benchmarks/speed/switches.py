"""What each thing that makes ours fast on a CPU does for a training step and for drawing 16 images by DDIM: with all, and with each
off, in turns.

make parity (once, for PyTorch); python benchmarks/speed/switches.py [--network small] [--batch 16] [--steps 3] [--rounds 8]
  [--off "convolutions by sums,remat"]

A rate is that of the median round; the ratio is to the same round with all on. Memory is the most after the first step.
At the end, in turns too: seconds until a command that starts again has taken its first step, by the trace that is kept and without.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

from measure import Contestant, about, median
from networks import NETWORKS, names, positive

from ddpm.tuning import LITTLE_MEMORY, YNNPACK

OFF = {  # what the environment says
    "convolutions by sums": {"DDPM_WINOGRAD": "0"},
    "batches drawn whole": {"DDPM_HALVES": "0"},
    "XLA without YNNPACK": {"XLA_FLAGS": LITTLE_MEMORY},
    "XLA in more memory": {"XLA_FLAGS": YNNPACK},
    "glibc gives memory back": {"MALLOC_PERTURB_": "0"},  # which is so anyway, and leaves the allocator as it is
    "steps ahead of time": {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"},
    "Flax's norm of one pass": {"REPLACED": "norm", "DDPM_TRACED": "0"},
    "Flax's norm of two passes": {"REPLACED": "norm_in_two_passes", "DDPM_TRACED": "0"},
    "Flax's dropout": {"REPLACED": "dropout", "DDPM_TRACED": "0"},
    "state not donated": {"REPLACED": "donation", "DDPM_TRACED": "0"},
    "data streamed": {"OPTIONS": '{"data.resident_bytes": 0}'},
    "remat": {"OPTIONS": '{"model.unet.remat": true}'},
    "two steps in a dispatch": {"OPTIONS": '{"training.steps_per_dispatch": 2}'},
}
UNTRACED = {"DDPM_TRACED": "0"}  # nothing but starts
DRAWN = {"batch": 16, "steps": 5}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--steps", type=positive, default=3, help="a turn")
    parser.add_argument("--rounds", type=positive, default=8)
    parser.add_argument("--off", type=names(OFF), default=",".join(OFF), help="all of them hold their memory at once")
    arguments = parser.parse_args()
    replaces = (
        "LD_PRELOAD",
        "GLIBC_TUNABLES",
        "JAX_NUM_CPU_DEVICES",
        *(name for of in (UNTRACED, *OFF.values()) for name in of),
    )
    if said := [name for name in os.environ if name in replaces or name.startswith("MALLOC_")]:
        parser.error(f"the environment has {', '.join(said)}, so not all would be on: unset them")
    arguments.dtype, arguments.devices = "float32", 1
    print(about(arguments))
    with tempfile.TemporaryDirectory() as folder:
        contestants, rates = {}, {}
        for what in ["all on", *arguments.off]:
            cache = pathlib.Path(folder) / what
            cache.mkdir()
            contestants[what] = Contestant("ours", arguments.network, arguments, cache, **OFF.get(what, {}))
        arguments.devices = 2
        (pathlib.Path(folder) / "two").mkdir()
        contestants["two devices"] = Contestant("ours", arguments.network, arguments, pathlib.Path(folder) / "two")
        for turn in range(arguments.rounds + 1):
            for what, made in contestants.items():
                took, drew = made("train", steps=arguments.steps), made("sample", **DRAWN)
                if turn:  # the first one warms up
                    train, draw = rates.setdefault(what, ([], []))
                    train.append(took["steps"] * arguments.batch / took["seconds"])
                    draw.append(DRAWN["batch"] * DRAWN["steps"] / drew["seconds"])
        heads = ("training, images/s", "ratio (spread)", "drawing, steps x images/s", "ratio (spread)", "memory, GB")
        heads = (*heads, "XLA compiled for, s")
        print(f"\n| {arguments.network} | {' | '.join(heads)} |\n|---|---:|---:|---:|---:|---:|---:|")
        for what, made in contestants.items():
            cells = []
            for of, all_on in zip(rates[what], rates["all on"], strict=True):
                ratios = [a / b for a, b in zip(of, all_on, strict=True)]
                spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
                cells += [f"{statistics.median(of):.3g}", f"{statistics.median(ratios):.2f} ({spread})"]
            cells += [f"{made('peak')['resident'] / 1e9:.2f}", f"{made('compiled')['compiled']:.1f}"]
            print(f"| {what} | {' | '.join(cells)} |")
            made.close()
        arguments.devices, starts = 1, []
        for turn in range(arguments.rounds + 1):
            took = []
            for what, environment in (("all on", {}), ("untraced", UNTRACED)):
                cache = pathlib.Path(folder) / what
                cache.mkdir(exist_ok=True)
                made = Contestant("ours", arguments.network, arguments, cache, **environment)
                took.append(made.first)
                made.close()
            if turn:  # the first one compiles
                starts.append(took)
        kept, untraced = zip(*starts, strict=True)
        print(f"\nfirst step again after {median(kept)} s; traced at each start {median(untraced)} s;")
        print(f"of the same turn {median([a / b for a, b in starts])} times as long")


if __name__ == "__main__":
    main()
