"""How the Frechet distance falls with the number of images, and what is left of that in FID-infinity:

    python benchmarks/fid_sample_size.py --images cifar10:test --reference cifar10:train --num 5000 --num_reference 5000

Real images against real images by Inception (or --features efficientnet): theory says FID_n = FID_infinity + C / n, where C of
a Gaussian is known (ddpm/evaluation/frechet.py, expected_bias). Features are kept in the cache and not computed twice.
"""

import argparse
import functools
import sys

import numpy as np

from ddpm.errors import InputError
from ddpm.evaluate import Evaluator, named_dataset
from ddpm.evaluation.frechet import expected_bias, fid_infinity, frechet_distance
from ddpm.evaluation.moments import Moments
from experiments import base


def main(images: str, reference: str, num: int, num_reference: int, features: str, sizes: int) -> bool:
    """Prints the table; whether the distance falls with every larger n."""
    config = base.get_config()
    config.evaluation.update(metrics=("fid",), reference=reference, num_reference=num_reference)
    config.evaluation.features.name = features
    evaluator = Evaluator(config, named_dataset(reference, config), functools.partial(print, flush=True))
    real, shuffled = evaluator.reference.moments("pool"), evaluator.images(images, num).of("pool", "fid")
    d = shuffled.shape[1]
    # One choice of n images is noisy where n is near d: the mean of three.
    orders = [np.random.default_rng(seed).permutation(num) for seed in range(3)]

    print(f"\n{images} against {num_reference} of {reference}, {d} features of {evaluator.network.name}")
    print(f"{'n':>8s}{'FID_n':>10s}{'FID_num + C/n - C/num':>24s}{'FID-infinity of n':>20s}")
    measured = []
    for n in np.linspace(min(d + 1, num // 2), num, sizes).astype(int)[::-1]:
        subsets = [shuffled[order[:n]] for order in orders]
        measured.append(np.mean([frechet_distance(Moments.of(subset), real) for subset in subsets]))
        predicted = measured[0] + expected_bias(real.cov, n) - expected_bias(real.cov, num)
        try:
            limit = f"{fid_infinity(subsets[0], real):.3f}"
        except InputError:
            limit = f"n < {2 * (d + 1)}"
        print(f"{n:8d}{measured[-1]:10.3f}{predicted:24.3f}{limit:>20s}", flush=True)
    return bool(np.all(np.diff(measured) > 0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="cifar10:test")
    parser.add_argument("--reference", default="cifar10:train")
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--num_reference", type=int, default=5000)
    parser.add_argument("--features", default="inception")
    parser.add_argument("--sizes", type=int, default=7)
    sys.exit(not main(**vars(parser.parse_args())))
