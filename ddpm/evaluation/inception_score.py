"""The Inception score."""

import numpy as np

from ddpm.errors import check_at_least
from ddpm.evaluation.points import as_points


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int | None = 2020) -> tuple[float, float]:
    """exp(E_x KL(p(y|x) || p(y))) = exp(H(y) - E_x H(y|x)): mean and standard deviation over splits of n / 10 images.

    From 1, all images alike to the classifier, to the number of classes.

    Args:
      logits: [n, classes].
      splits: parts of equal size, to one image.
      seed: of the order they are cut from, as full sets lie class by class and a part that lacks classes scores less; by
        default torch-fidelity's. None takes them as they come.
    Raises:
      InputError: fewer images than splits, or logits that are not finite.

    Salimans et al. 2016, Eq. 2 (Sec. 4); splits as in its code.
    """
    check_at_least(1, splits=splits)
    logits = as_points(logits, "logits", splits)
    n = len(logits)
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(n)]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        p = np.exp(part)
        marginal = p.mean(axis=0)
        marginal = marginal[marginal > 0]  # 0 log 0 = 0
        scores.append(np.exp((p * part).sum(axis=1).mean() - (marginal * np.log(marginal)).sum()))
    return float(np.mean(scores)), float(np.std(scores))
