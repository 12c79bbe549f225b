"""The networks that ours and its peers are timed with: options of our U-Net, the size of the images, and their channels."""

import time
from collections.abc import Callable

NETWORKS = {
    "small": (dict(channels=32, channel_mult=(1, 2, 2), attention_resolutions=(14,)), 28, 1),
    "cifar10": (dict(channels=128, channel_mult=(1, 2, 2, 2), attention_resolutions=(16,)), 32, 3),
    "imagenet64": (
        dict(channels=192, channel_mult=(1, 2, 3, 4), num_res_blocks=3, attention_resolutions=(16, 8), head_channels=64)
        | dict(scale_shift=True),
        64,
        3,
    ),
}
# The step that all take: dropout, norm the gradient is clipped to, Adam's rate, EMA's decay; images that are drawn from.
DROPOUT, CLIP, RATE, DECAY, IMAGES = 0.1, 1.0, 2e-4, 0.9999, 4096


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of ten runs, after one that is not counted."""
    run()
    took = []
    for _ in range(10):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return min(took)
