"""The networks that ours and its peers are timed with: options of our U-Net, the size of the images, and their channels."""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterable

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
PEERS = {  # and whether they are there
    "diffusers": True,
    "diffusers_channels_last": True,
    "diffusers_compiled": True,
    "guided_diffusion": os.path.isfile(os.environ.get("GUIDED_DIFFUSION", "") + "/guided_diffusion/unet.py"),
    "edm": os.path.isfile(os.environ.get("EDM", "") + "/training/networks.py"),
    "denoising_diffusion_pytorch": importlib.util.find_spec("denoising_diffusion_pytorch") is not None,
}
# The step that all take: dropout, norm the gradient is clipped to, Adam's rate, EMA's decay; images that are drawn from.
DROPOUT, CLIP, RATE, DECAY, IMAGES = 0.1, 1.0, 2e-4, 0.9999, 4096


def positive(text: str) -> int:
    """The whole number above 0 that an option of a command is given; argparse says what is wrong with another."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def positives(text: str) -> list[int]:
    """Such numbers with commas between them."""
    return [positive(part) for part in text.split(",") if part]


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """What reads known names with commas between them."""

    def read(text: str) -> list[str]:
        found = list(dict.fromkeys(part for part in text.split(",") if part))
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name}, only {', '.join(known)}")
        return found

    return read


def check_peers_installed(parser: argparse.ArgumentParser) -> None:
    """Ends the command, before anything is measured, where PyTorch or diffusers is missing."""
    if absent := [name for name in ("torch", "diffusers") if not importlib.util.find_spec(name)]:
        parser.error(f"{', '.join(absent)}: not installed; make parity installs them")


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of ten runs, after one that is not counted."""
    run()
    took = []
    for _ in range(10):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return min(took)
