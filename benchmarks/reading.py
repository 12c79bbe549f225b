"""How fast each kind of data set is read and decoded, and for what share of its time a training waits for it.

python -m ddpm.main --config experiments/cosine_cifar.py --mode prepare (once)
python benchmarks/reading.py [--num 5000] [--seconds 10] [--steps 40]

The first images of CIFAR-10, as a data set of tfds, an array, a folder of PNG, and a folder of JPEG of 256 x 256 pixels which are
made 32 x 32 when read. Rates are of grain's threads with nothing else to do, and of the whole set into memory the first time and
the next; the share is of the last steps of a run of the command with a small network, whose own rate stands beside it.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "speed"), str(HERE.parent)]

from networks import positive  # noqa: E402

from ddpm import datasets  # noqa: E402
from ddpm.data.decoded import in_memory  # noqa: E402
from ddpm.data.images import Dataset  # noqa: E402
from ddpm.data.pipeline import grain_batches  # noqa: E402
from ddpm.errors import InputError  # noqa: E402
from experiments import cosine_cifar  # noqa: E402

BATCH = 64
NETWORK = ["channels=32", "channel_mult=(1,2,2)", "attention_resolutions=(16,)"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=positive, default=5000)
    parser.add_argument("--seconds", type=positive, default=10)
    parser.add_argument("--steps", type=positive, default=40)
    arguments = parser.parse_args()
    if arguments.steps < 8:
        parser.error(f"--steps: {arguments.steps} is less than 8: the last quarter of them is timed")
    try:
        count = datasets.dataset(cosine_cifar.get_config()).facts.count
    except InputError as error:
        parser.error(str(error))
    if arguments.num > count:
        parser.error(f"--num: CIFAR-10 has {count} images, not {arguments.num}")
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        write(root, arguments.num)
        streamed = {"resident_bytes": 0}
        sets = {
            "array in memory": {"name": "npz", "npz.path": root / "images.npz"},
            "array, streamed": {"name": "npz", "npz.path": root / "images.npz"} | streamed,
            "tfds, streamed": {"tfds.split": f"train[:{arguments.num}]"} | streamed,
            "folder of PNG": {"name": "folder", "folder.path": root / "png", "folder.size": 32} | streamed,
            "folder of JPEG, 256 to 32": {"name": "folder", "folder.path": root / "jpeg", "folder.size": 32} | streamed,
        }
        print("| data | read, images/s | into memory, then again | trained, images/s | of the time waiting |")
        print("|---|---:|---:|---:|---:|")
        for what, data in sets.items():
            read = f"{rate(data, arguments.seconds):,.0f}" if "resident_bytes" in data else ""
            whole = "" if "array" in what else " ".join(f"{into_memory(data, root):,.0f}" for _ in range(2))
            trained, waiting = training(data, root / what, arguments.steps)
            print(f"| {what} | {read} | {whole} | {trained:.0f} | {waiting:.1%} |", flush=True)


def write(root: pathlib.Path, num: int) -> None:
    """The first `num` images of CIFAR-10 as an array and as files."""
    images = datasets.dataset(cosine_cifar.get_config()).images
    images = np.stack([images[i] for i in range(num)])
    np.savez(root / "images.npz", images)
    for folder in ("png", "jpeg"):
        (root / folder).mkdir()
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        image.save(root / "png" / f"{i}.png")
        image.resize((256, 256), Image.Resampling.BICUBIC).save(root / "jpeg" / f"{i}.jpg", quality=90)


def opened(data: dict) -> Dataset:
    """The data set of options."""
    config = cosine_cifar.get_config()
    config.data.update_from_flattened_dict({key: str(value) if "path" in key else value for key, value in data.items()})
    return datasets.dataset(config)


def into_memory(data: dict, cache: pathlib.Path) -> float:
    """Images a second, of all of them."""
    dataset, began = opened(data), time.perf_counter()
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(cache)):
        return len(in_memory(dataset)) / (time.perf_counter() - began)


def rate(data: dict, seconds: float) -> float:
    """Images a second that come out of grain."""
    batches = grain_batches(opened(data), 0, BATCH, 0)
    for _ in range(20):  # beyond what is read ahead
        next(batches)
    count, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        count += len(next(batches).pixels)
    return count / (time.perf_counter() - began)


def training(data: dict, workdir: pathlib.Path, steps: int) -> tuple[float, float]:
    """(Images a second, share of the time waiting) in the last quarter of the steps of a run."""
    often = dict(
        num_steps=steps, log_every=max(1, steps // 4), batch_size=BATCH, save_every=0, sample_every=0, evaluate_every=0
    )
    flags = [f"data.{key}={value}" for key, value in data.items()]
    flags += [f"training.{key}={value}" for key, value in often.items()]
    flags += [f"model.unet.{option}" for option in NETWORK]
    command = [sys.executable, "-m", "ddpm.main", "--config", "experiments/cosine_cifar.py", f"--workdir={workdir}"]
    quiet = dict(cwd=HERE.parent, stdout=subprocess.DEVNULL, check=True)
    subprocess.run(command + [f"--config.{flag}" for flag in flags], **quiet)
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    return last["images_per_second"], last["waiting_for_data"]


if __name__ == "__main__":
    main()
