"""Pictures: grids, the denoising path, the loss curve."""

import math
import pathlib

import numpy as np
from PIL import Image


def grid(pixels: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images [n, height, width, channels] side by side, near a square, with a line of background between them."""
    n, height, width, channels = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 32, np.uint8)
    for i, image in enumerate(pixels):
        y, x = 1 + i // columns * (height + 1), 1 + i % columns * (width + 1)
        sheet[y : y + height, x : x + width] = image
    return sheet


def strip(path: np.ndarray, frames: int = 12) -> np.ndarray:
    """A denoising path [steps, n, height, width, channels] as a sheet: a row a sample, `frames` steps from left to right."""
    chosen = path[_spread(len(path), frames)]
    return grid(np.swapaxes(chosen, 0, 1).reshape(-1, *path.shape[2:]), columns=len(chosen))


def save_png(file: pathlib.Path, pixels: np.ndarray, min_side: int = 512) -> None:
    """Writes pixels [height, width, 1, 3 or other channels], small ones enlarged by a whole factor to be looked at."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _image(pixels, min_side).save(file)


def save_gif(file: pathlib.Path, path: np.ndarray, frames: int = 40, min_side: int = 256) -> None:
    """Writes a denoising path [steps, n, height, width, channels] as an animation of its grid."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [_image(grid(step), min_side) for step in path[_spread(len(path), frames)]]
    durations = [60] * (len(images) - 1) + [1500]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)


def save_loss_curve(file: pathlib.Path, rows: list[dict]) -> None:
    """Draws the loss over steps, whole and by quarter of t, from rows of metrics.jsonl."""
    from matplotlib.figure import Figure  # half a second

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    quarters = {f"loss_t_quarter_{i}": f"t in quarter {i} from data to noise" for i in range(1, 5)}
    lines = {"loss": "all t"} | quarters if any(key in r for r in rows for key in quarters) else {"loss": "loss"}
    for key, label in lines.items():
        steps, losses = (
            zip(*[(r["step"], r[key]) for r in rows if key in r], strict=True)
            if any(key in r for r in rows)
            else ((), ())
        )
        axes.plot(steps, losses, label=label, color="black" if key == "loss" else None, lw=2 if key == "loss" else 1)
    positive = all(row.get(key, 1) > 0 for row in rows for key in lines)
    axes.set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper right")
    figure.savefig(file, dpi=120)


def save_terms(file: pathlib.Path, times: np.ndarray, terms: np.ndarray, bins: int = 50) -> None:
    """Draws the terms of a bound, in bits per dimension each, by time: means over as many bins as there are examples for.

    Args:
      times, terms: [images, levels].
    """
    from matplotlib.figure import Figure

    order = np.argsort(times, axis=None)
    pieces = np.array_split(order, min(bins, order.size))
    t, mean = (np.array([np.mean(values.ravel()[piece]) for piece in pieces]) for values in (times, terms))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(t, mean, marker=".")
    scale = "log" if (mean > 0).all() else "linear"
    axes.set(
        xlabel="t", ylabel="term times their number, bits/dim", xscale="log" if t.min() > 0 else "linear", yscale=scale
    )
    axes.grid(alpha=0.3, which="both")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def _spread(length: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, count).round().astype(int))


def visible(pixels: np.ndarray) -> np.ndarray:
    """Pixels [..., channels] as grey or colour; of other numbers of channels, which have no colour, the first."""
    return pixels if pixels.shape[-1] in (1, 3) else pixels[..., :1]


def _image(pixels: np.ndarray, min_side: int) -> Image.Image:
    pixels = visible(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    factor = max(1, math.ceil(min_side / min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
