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

HIGHER_IS_BETTER = ("inception_score", "classifier_score", "precision", "recall", "density", "coverage", "psnr")
# How names begin of what is best when near to this.
NEAR = {"mean_drift": 0, "spread_drift": 0, "sharpness": 1, "latent_mean": 0, "latent_std": 1}
NEITHER = ("nearest_distance",)  # low for copies, high for poor images; all others are better when lower
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
Figures = dict[str, float]


def _metric(
    *taps: str,
    generated: str,
    real: str = "",
    against: str = "reference",
    ranks: str | None = None,
    least: Callable[[int], int] = lambda dims: 1,
    **settings,
) -> Callable[[Callable], Callable]:
    """Marks what is told before a metric is computed.

    Args:
      taps: of the feature network that it needs.
      generated, real: what it needs to know of either set: 'moments', 'features', 'pixels', or '' for nothing.
      against: the real images: the 'reference', or those of the 'training', whatever the reference.
      ranks: the figure of it that ranks runs: its own name, if not told.
      least: dimension of the features -> the fewest images of which it can be computed.
      settings: of the computation, part of the provenance.
    """

    def mark(metric):
        metric.taps, metric.generated, metric.real, metric.against = taps, generated, real, against
        metric.ranks, metric.least, metric.settings = ranks or metric.__name__, least, settings
        return metric

    return mark


@_metric("pool", generated="moments", real="moments")
def fid(generated: Extracted, real: Extracted) -> Figures:
    """The Frechet distance of features (Heusel et al. 2017)."""
    return {"fid": frechet.frechet_distance(generated.moments("pool"), real.moments("pool"))}


@_metric("pool", generated="features", real="moments", least=lambda dims: 2 * (dims + 1), num_points=15)
def fid_infinity(generated: Extracted, real: Extracted) -> Figures:
    """The same for infinitely many generated images (Chong and Forsyth 2020)."""
    features = generated.of("pool", "fid_infinity")
    return {"fid_infinity": frechet.fid_infinity(features, real.moments("pool"), **fid_infinity.settings)}


@_metric("spatial", generated="moments", real="moments")
def sfid(generated: Extracted, real: Extracted) -> Figures:
    """The Frechet distance of features that keep their place in the image (Nash et al. 2021)."""
    return {"sfid": frechet.frechet_distance(generated.moments("spatial"), real.moments("spatial"))}


@_metric("pool", generated="features", real="features", least=lambda dims: 2, subsets=100, subset_size=1000)
def kid(generated: Extracted, real: Extracted) -> Figures:
    """The kernel distance of features, mean and deviation over subsets (Binkowski et al. 2018)."""
    distance = kernel_distance(real.of("pool", "kid"), generated.of("pool", "kid"), **kid.settings)
    return {"kid": distance.mean, "kid_std": distance.std}


@_metric("logits", generated="features", least=lambda dims: 10, splits=10)
def inception_score(generated: Extracted, real: Extracted) -> Figures:
    """How sure and how varied the network's classes are, mean and deviation over splits (Salimans et al. 2016)."""
    mean, std = score(generated.of("logits", "inception_score"), **inception_score.settings)
    return {"inception_score": mean, "inception_score_std": std}


@_metric("pool", generated="features", real="features", ranks="precision", least=lambda dims: 4, k=3)
def pr(generated: Extracted, real: Extracted) -> Figures:
    """Improved precision and recall (Kynkaanniemi et al. 2019)."""
    precision, recall = precision_recall(real.of("pool", "pr"), generated.of("pool", "pr"), **pr.settings)
    return {"precision": precision, "recall": recall}


@_metric("pool", generated="features", real="features", ranks="density", least=lambda dims: 6, k=5)
def dc(generated: Extracted, real: Extracted) -> Figures:
    """Density and coverage (Naeem et al. 2020)."""
    density, coverage = density_coverage(real.of("pool", "dc"), generated.of("pool", "dc"), **dc.settings)
    return {"density": density, "coverage": coverage}


@_metric(generated="pixels", real="pixels", ranks="sharpness")
def drift(generated: Extracted, real: Extracted) -> Figures:
    """Mean and spread of each channel, and sharpness, of the generated pixels less (relative to) those of the real ones.

    Real images without any contrast have no sharpness to relate to: that figure is left out.
    """
    mean, spread = colour_drift(generated.pixels("drift").colours, real.pixels("drift").colours)
    names = CHANNELS.get(len(mean), [str(i) for i in range(len(mean))])
    figures = {f"mean_drift_{name}": float(x) for name, x in zip(names, mean, strict=True)}
    figures |= {f"spread_drift_{name}": float(x) for name, x in zip(names, spread, strict=True)}
    sharpness = real.pixels("drift").sharpness
    return figures | ({"sharpness": generated.pixels("drift").sharpness / sharpness} if sharpness else {})


@_metric("pool", generated="features", real="features", against="training", ranks="memorised", threshold=1 / 3)
def memorisation(generated: Extracted, real: Extracted) -> Figures:
    """The share of generated images that are copies of training images (Yoon et al. 2023), and the mean nearest distance."""
    found = copies(generated.of("pool", "memorisation"), real.of("pool", "memorisation"), **memorisation.settings)
    return {"memorised": found.share, "nearest_distance": float(np.mean(found.distance))}
