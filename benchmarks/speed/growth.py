"""How the time of a training step grows with the batch and with the pixels: slopes of straight lines through logarithms, 1 where it is linear.

python benchmarks/speed/growth.py [--batches 8,16,32,64] [--sides 16,32,64] [--rounds 5]

The small network without attention, whose time goes with the square of the pixels; the batch grows with images of 32 x 32, the
images in batches of 8. The sizes are timed in turns, and a slope is of each round.
"""

import argparse
import statistics
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
    grow("images in a batch", [(batch, 32, batch) for batch in arguments.batches], arguments.rounds)
    grow("pixels of an image", [(8, side, side**2) for side in arguments.sides], arguments.rounds)


def grow(what: str, sizes: list[tuple[int, int, int]], rounds: int) -> None:
    """Prints the seconds of a step of (batch, side) for each size of a list of (batch, side, size), and the slope."""
    made = [Ours(f"side {side}", batch, "float32", 1) for batch, side, _ in sizes]
    took = np.array([[seconds(each) for each in made] for _ in range(rounds + 1)][1:])  # the first round warms up
    slopes = [np.polyfit(np.log([size for *_, size in sizes]), np.log(each), 1)[0] for each in took]
    print(f"\n| {what} | seconds a step, median | slope |\n|---:|---:|---:|")
    slope = f"{statistics.median(slopes):.2f} ({min(slopes):.2f} to {max(slopes):.2f})"
    for (*_, size), each in zip(sizes, np.median(took, axis=0), strict=True):
        print(f"| {size} | {each:.3f} | {slope} |", flush=True)
        slope = ""


def seconds(ours: Ours) -> float:
    """Of a step."""
    began = time.perf_counter()
    steps = ours.train(2)
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    main()
