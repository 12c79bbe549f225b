"""How the time of a training step grows with the batch and with the pixels: what each further image or pixel costs, the same where it is linear.

python benchmarks/speed/growth.py [--batches 8,16,32,64] [--sides 16,32,64] [--rounds 5]

The small network with attention in the middle alone, whose time goes with the square of the pixels; the batch grows with images of 32 x 32, the
images in batches of 8. The sizes are timed in turns; each round has its own cost of going from a size to the next.
"""

import argparse
import time

import numpy as np
from networks import NETWORKS, positive, positives
from ours import Ours


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=positives, default="8,16,32,64", help="two or more")
    parser.add_argument("--sides", type=positives, default="16,32,64", help="two or more, multiples of 4")
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args()
    for name in ("batches", "sides"):
        if len(set(getattr(arguments, name))) < 2:
            parser.error(f"--{name}: a line needs two or more of them")
    if any(side % 4 for side in arguments.sides):
        parser.error("--sides: the network halves images twice, so that they are multiples of 4")
    options, _, channels = NETWORKS["small"]
    for side in {32, *arguments.sides}:
        NETWORKS[f"side {side}"] = (options | {"attention_resolutions": ()}, side, channels)
    grow("images in a batch", [(batch, 32, batch) for batch in sorted(set(arguments.batches))], arguments.rounds)
    grow("pixels of an image", [(8, side, side**2) for side in sorted(set(arguments.sides))], arguments.rounds)


def grow(what: str, sizes: list[tuple[int, int, int]], rounds: int) -> None:
    """Prints the seconds of a step of (batch, side) for each (batch, side, size), and the slopes."""
    made = [Ours(f"side {side}", batch, "float32", 1) for batch, side, _ in sizes]
    took = np.array([[seconds(each) for each in made] for _ in range(rounds + 1)][1:])  # the first round warms up
    slopes = np.diff(took) / np.diff([size for *_, size in sizes]) * 1e6
    print(f"\n| {what} | seconds a step, median | microseconds of each further one (spread) |\n|---:|---:|---:|")
    for i, (*_, size) in enumerate(sizes):
        slope = slopes[:, i - 1]
        further = f"{np.median(slope):,.0f} ({slope.min():,.0f} to {slope.max():,.0f})" if i else ""
        print(f"| {size:,} | {np.median(took[:, i]):.3f} | {further} |", flush=True)


def seconds(ours: Ours) -> float:
    """Of a step."""
    began = time.perf_counter()
    steps = ours.train(2)
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    main()
