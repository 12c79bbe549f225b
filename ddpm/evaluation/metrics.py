"""The metrics by the names a command takes: each gives figures of generated images against real ones."""

from collections.abc import Callable

import numpy as np

from ddpm.evaluation import frechet
from ddpm.evaluation.density_coverage import density_coverage
from ddpm.evaluation.drift import colour_drift
from ddpm.evaluation.extract import Extracted
from ddpm.evaluation.inception_score import inception_score as score
from ddpm.evaluation.kid import kid as kernel_distance
from ddpm.evaluation.memorisation import memorisation as copies
from ddpm.evaluation.precision_recall import precision_recall

HIGHER_IS_BETTER = ("inception_score", "classifier_score", "precision", "recall", "density", "coverage")
# With another network's features these are not the figures of papers, so they do not bear their names.
OTHER_NETWORKS = {
    "fid": "fd",
    "fid_infinity": "fd_infinity",
    "sfid": "sfd",
    "kid": "kd",
    "kid_std": "kd_std",
    "inception_score": "classifier_score",
    "inception_score_std": "classifier_score_std",
}
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
Figures = dict[str, float]


def named(figure: str, network: str) -> str:
    """A figure's name where a feature network was used."""
    return figure if network == "inception" else OTHER_NETWORKS.get(figure, figure)


def _metric(*taps: str, ranks: str | None = None) -> Callable[[Callable], Callable]:
    """Marks the taps of the feature network that a metric needs, and the figure of it that ranks runs: its name, if not told."""

    def mark(metric):
        metric.taps, metric.ranks = taps, ranks or metric.__name__
        return metric

    return mark


@_metric("pool")
def fid(generated: Extracted, real: Extracted) -> Figures:
    """The Frechet distance of features (Heusel et al. 2017)."""
    return {"fid": frechet.frechet_distance(generated.moments("pool"), real.moments("pool"))}


@_metric("pool")
def fid_infinity(generated: Extracted, real: Extracted) -> Figures:
    """The same for infinitely many generated images (Chong and Forsyth 2020)."""
    return {"fid_infinity": frechet.fid_infinity(generated.of("pool", "fid_infinity"), real.moments("pool"))}


@_metric("spatial")
def sfid(generated: Extracted, real: Extracted) -> Figures:
    """The Frechet distance of features that keep their place in the image (Nash et al. 2021)."""
    return {"sfid": frechet.frechet_distance(generated.moments("spatial"), real.moments("spatial"))}


@_metric("pool")
def kid(generated: Extracted, real: Extracted) -> Figures:
    """The kernel distance of features, mean and deviation over 100 subsets (Binkowski et al. 2018)."""
    distance = kernel_distance(real.of("pool", "kid"), generated.of("pool", "kid"))
    return {"kid": distance.mean, "kid_std": distance.std}


@_metric("logits")
def inception_score(generated: Extracted, real: Extracted) -> Figures:
    """How sure and how varied the network's classes are, mean and deviation over 10 splits (Salimans et al. 2016)."""
    mean, std = score(generated.of("logits", "inception_score"))
    return {"inception_score": mean, "inception_score_std": std}


@_metric("pool", ranks="precision")
def pr(generated: Extracted, real: Extracted) -> Figures:
    """Improved precision and recall, k = 3 (Kynkaanniemi et al. 2019)."""
    precision, recall = precision_recall(real.of("pool", "pr"), generated.of("pool", "pr"))
    return {"precision": precision, "recall": recall}


@_metric("pool", ranks="density")
def dc(generated: Extracted, real: Extracted) -> Figures:
    """Density and coverage, k = 5 (Naeem et al. 2020)."""
    density, coverage = density_coverage(real.of("pool", "dc"), generated.of("pool", "dc"))
    return {"density": density, "coverage": coverage}


@_metric(ranks="sharpness")
def drift(generated: Extracted, real: Extracted) -> Figures:
    """Mean and spread of each channel, and sharpness, of the generated pixels less (relative to) those of the real ones."""
    mean, spread = colour_drift(generated.pixels("drift").colours, real.pixels("drift").colours)
    names = CHANNELS.get(len(mean), [str(i) for i in range(len(mean))])
    figures = {f"mean_drift_{name}": float(x) for name, x in zip(names, mean, strict=True)}
    figures |= {f"spread_drift_{name}": float(x) for name, x in zip(names, spread, strict=True)}
    return figures | {"sharpness": generated.pixels("drift").sharpness / real.pixels("drift").sharpness}


@_metric("pool", ranks="memorised")
def memorisation(generated: Extracted, real: Extracted) -> Figures:
    """The share of generated images that are copies of real ones (Yoon et al. 2023), and the mean nearest distance."""
    found = copies(generated.of("pool", "memorisation"), real.of("pool", "memorisation"))
    return {"memorised": found.share, "nearest_distance": float(np.mean(found.distance))}
