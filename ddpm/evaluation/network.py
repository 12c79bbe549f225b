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
