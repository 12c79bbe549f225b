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
import random
import statistics
import tempfile

from measure import Contestant, about
from networks import NETWORKS, names, positive
from tables import median

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
    "gradients of two batches in a step": {"OPTIONS": '{"optimizer.accumulate": 2}'},
    "two steps in a dispatch": {"OPTIONS": '{"training.steps_per_dispatch": 2}'},
}
TWO, UNTRACED = "two devices", "traced at each start"  # each with half of the batch; which says nothing of rates
EVERYTHING = (*OFF, TWO, UNTRACED)
DRAWN = {"batch": 16, "steps": 5}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--steps", type=positive, default=3, help="a turn")
    parser.add_argument("--rounds", type=positive, default=8)
    known = f"{', '.join(EVERYTHING)}; all that are chosen hold their memory at once"
    parser.add_argument("--off", type=names(EVERYTHING), default=",".join(EVERYTHING), help=known)
    arguments = parser.parse_args()
    replaces = (
        "LD_PRELOAD",
        "GLIBC_TUNABLES",
        "JAX_NUM_CPU_DEVICES",
        "DDPM_TRACED",
        *(name for of in OFF.values() for name in of),
    )
    if said := [name for name in os.environ if name in replaces or name.startswith("MALLOC_")]:
        parser.error(f"the environment has {', '.join(said)}, so not all would be on: unset them")
    arguments.dtype, arguments.devices = "float32", 1
    print(about(arguments), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(rates(arguments, pathlib.Path(folder))), flush=True)
        if UNTRACED in arguments.off:
            print(starts(arguments, pathlib.Path(folder)))


def rates(arguments: argparse.Namespace, folder: pathlib.Path) -> list[str]:
    """Lines of Markdown."""
    contestants = {}
    for what in ["all on", *(what for what in arguments.off if what != UNTRACED)]:
        of = argparse.Namespace(**vars(arguments) | {"devices": 2 if what == TWO else 1})
        (folder / what).mkdir()
        contestants[what] = Contestant("ours", arguments.network, of, folder / what, **OFF.get(what, {}))
    found = {what: ([], []) for what in contestants}
    for turn in range(arguments.rounds + 1):
        for what in random.Random(turn).sample(list(contestants), len(contestants)):  # whoever comes first is no slower
            took, drew = contestants[what]("train", steps=arguments.steps), contestants[what]("sample", **DRAWN)
            if turn:  # the first one warms up
                found[what][0].append(took["steps"] * arguments.batch / took["seconds"])
                found[what][1].append(DRAWN["batch"] * DRAWN["steps"] / drew["seconds"])
    heads = ("training, images/s", "ratio (spread)", "drawing, steps x images/s", "ratio (spread)", "memory, GB")
    lines = [
        f"\n| {arguments.network} | {' | '.join(heads)} | XLA compiled for, s |\n|---|---:|---:|---:|---:|---:|---:|"
    ]
    for what, made in contestants.items():
        cells = []
        for of, all_on in zip(found[what], found["all on"], strict=True):
            ratios = [a / b for a, b in zip(of, all_on, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            cells += [f"{statistics.median(of):.3g}", f"{statistics.median(ratios):.2f} ({spread})"]
        cells += [f"{made('peak')['resident'] / 1e9:.2f}", f"{made('compiled')['compiled']:.1f}"]
        lines.append(f"| {what} | {' | '.join(cells)} |")
        made.close()
    return lines


def starts(arguments: argparse.Namespace, folder: pathlib.Path) -> str:
    """Seconds until the first step of a command that starts again."""
    found, parts = [], []
    for turn in range(arguments.rounds + 1):
        took = []
        for what, environment in (("all on", {}), (UNTRACED, {"DDPM_TRACED": "0"})):
            (folder / what).mkdir(exist_ok=True)
            made = Contestant("ours", arguments.network, arguments, folder / what, **environment)
            took.append(made.first)
            parts += [made("parts")] if turn and what == "all on" else []
            made.close()
        if turn:  # the first one compiles
            found.append(took)
    kept, untraced = zip(*found, strict=True)
    of = {name: median([of[name] for of in parts]) for name in parts[0] if name != "seconds"}
    xla = of.pop("XLA")
    of_parts = ", ".join(f"{name} {took}" for name, took in of.items())
    return (
        f"\nfirst step again after {median(kept)} s; {UNTRACED} {median(untraced)} s; "
        f"the former took {median([a / b for a, b in found])} of the latter of the same turn\n"
        f"of the former, in seconds: {of_parts}; XLA read the step for {xla} from before the parameters on"
    )


if __name__ == "__main__":
    main()
