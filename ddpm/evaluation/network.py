"""What a feature network is to the metrics."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A network whose inner features are compared in place of pixels.

    Attributes:
      name: of the network.
      sha256: 16 hexadecimal digits, of its weights.
      rule: how images reach it, in words: resize, rounding, range.
      taps: names of its features: 'pool' always; 'spatial' and 'logits' where there are any.
      params: its weights.
      apply: (params, uint8 images [batch, height, width, channels]) -> {tap: float32 [batch, dims]}; pure.
    """

    name: str
    sha256: str
    rule: str
    taps: tuple[str, ...]
    params: Any
    apply: Callable


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


def named(figure: str, network: str) -> str:
    """A figure's name where a feature network was used."""
    return figure if network == "inception" else OTHER_NETWORKS.get(figure, figure)
