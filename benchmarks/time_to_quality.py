"""Wall time in which ours is as good as diffusers' example of unconditional training is at the end of its run.

make parity and python -m ddpm.main --config experiments/fast_fashion.py --mode prepare (once)
python benchmarks/time_to_quality.py --workdir DIR [--minutes 20] [--num 1000] [--features classifier] [--evaluations 4]

Fashion-MNIST, the same U-Net of 1.6 M parameters, the same cores, one after the other. The time of theirs starts when its data
are in memory, that of ours with the command: it reads the data and compiles in it. Theirs, as diffusers'
examples/unconditional_image_generation/train_unconditional.py --use_ema: eps of 1,000 linear noise levels, batches of 16, AdamW of 1e-4 with 500 steps of warm-up and a cosine to 0 at the end, EMA; 50 steps of DDIM draw. Ours:
experiments/fast_fashion.py, --evaluations of whose checkpoints are compared with theirs, to come near the first that is as good. Samples of
both are seen by the same network against the training images, and by the same code (--mode eval).
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "speed"), str(HERE.parent)]

from networks import NETWORKS, check_peers_installed  # noqa: E402

from ddpm import datasets  # noqa: E402
from ddpm.errors import InputError  # noqa: E402
from ddpm.names import find  # noqa: E402
from experiments import fast_fashion  # noqa: E402

EXPERIMENT = "experiments/fast_fashion.py"


def main() -> None:
    """Trains both, or as a process of its own theirs alone, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=20, help="of theirs; ours trains half as long")
    parser.add_argument("--num", type=int, default=1000, help="samples that are compared")
    parser.add_argument("--features", default="classifier", help="a feature network of --mode eval")
    parser.add_argument(
        "--inception", type=pathlib.Path, help="weights of the 2015 Inception, for --features inception"
    )
    parser.add_argument("--evaluations", type=int, default=4, help="of checkpoints of ours")
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    check_peers_installed(parser)
    for option in ("minutes", "num", "evaluations"):
        if not getattr(arguments, option) > 0:
            parser.error(f"--{option}: {getattr(arguments, option)} is not above 0")
    if (arguments.features == "inception") != bool(arguments.inception and arguments.inception.is_file()):
        parser.error(f"--features {arguments.features}, --inception {arguments.inception}: both or neither, and a file")
    arguments.workdir = arguments.workdir.resolve()  # processes below run in the repository's root
    arguments.inception = arguments.inception and arguments.inception.resolve()
    try:
        find("features", "ddpm.evaluation.features", arguments.features)
        datasets.dataset(fast_fashion.get_config())
        arguments.workdir.mkdir(parents=True, exist_ok=True)
    except (InputError, OSError) as error:
        parser.error(str(error))
    if arguments.theirs:
        theirs(arguments.workdir, arguments.minutes, arguments.num)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Trains theirs and ours, and looks for the first of our checkpoints that is as good."""
    images = arguments.workdir / "theirs.npz"
    if not images.exists():
        subprocess.run([sys.executable, __file__, "--theirs", *sys.argv[1:]], check=True)
    about = json.loads(images.with_suffix(".json").read_text())
    asked = {"num": arguments.num, "minutes": arguments.minutes}
    if not asked.items() <= about.items():
        raise SystemExit(f"{images} is of {about}, not of {asked}: choose another --workdir")
    aim = distance(["--config", EXPERIMENT, "--images", str(images)], arguments)
    print("| who | seconds | steps | images seen | distance |\n|---|---:|---:|---:|---:|")
    print(f"| theirs | {about['seconds']:.0f} | {about['steps']} | {16 * about['steps']} | {aim:.3f} |", flush=True)

    took = ours(arguments.workdir / "ours", about["seconds"] / 2)
    low, high = 0, len(took)  # checkpoints before low are worse than theirs, from high on as good
    steps = sorted(took)
    for _ in range(arguments.evaluations):
        if low == high:
            break
        step = steps[middle := (low + high) // 2]
        workdir = str(arguments.workdir / "ours")
        found = distance(["--workdir", workdir, "--step", str(step), "--num", str(arguments.num)], arguments)
        print(f"| ours | {took[step]:.0f} | {step} | {batch_size() * step} | {found:.3f} |", flush=True)
        low, high = (low, middle) if found <= aim else (middle + 1, high)
    if low == len(took):
        print("Ours was not as good in half the time of theirs.")
    elif high == len(took):
        print("None of the checkpoints of ours that were looked at was as good: allow more --evaluations.")
    else:
        print(f"Ours was as good after at most {took[steps[high]] / about['seconds']:.2f} of the time of theirs.")


def batch_size() -> int:
    """Images a batch of ours."""
    return fast_fashion.get_config().training.batch_size


def ours(workdir: pathlib.Path, seconds: float) -> dict[int, float]:
    """Trains; step of each checkpoint: seconds from the start of the command until it was there."""
    times, recipe = workdir / "times.json", fast_fashion.get_config().to_json()
    if not times.exists():
        often = ["--config.training.save_every=50", "--config.training.keep=1000"]
        if (workdir / "checkpoints").exists():  # its times would not be those of a whole run
            raise SystemExit(f"{workdir} was left before it was done: remove it, or choose another --workdir")
        began, took = time.time(), {}
        process = subprocess.Popen(command("--config", EXPERIMENT, "--workdir", str(workdir), *often), cwd=HERE.parent)
        while process.poll() is None and time.time() < began + seconds:
            time.sleep(1)
            for folder in (workdir / "checkpoints").glob("[0-9]*"):
                if folder.name.isdigit():
                    took.setdefault(int(folder.name), time.time() - began)
        if process.poll():
            raise SystemExit(f"ours ended with exit code {process.returncode}")
        process.terminate()
        process.wait()
        if not took:
            raise SystemExit("ours has no checkpoint in half the time of theirs: give both more --minutes")
        times.write_text(json.dumps({"recipe": recipe, "took": took}))
    about = json.loads(times.read_text())
    if about.get("recipe") != recipe:
        raise SystemExit(f"{times} is of another recipe than {EXPERIMENT} has now: choose another --workdir")
    return {int(step): at for step, at in about["took"].items()}


def distance(options: list[str], arguments: argparse.Namespace) -> float:
    """The Frechet distance that the command prints."""
    seen = ["--inception", str(arguments.inception)] if arguments.inception else ["--features", arguments.features]
    asked = ["--mode", "eval", "--metrics", "fid", *seen, *options]
    said = subprocess.run(command(*asked), cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(next(line.split()[1] for line in said.splitlines() if line.startswith(("fd ", "fid "))))


def command(*options: str) -> list[str]:
    """The command that a user would type."""
    return [sys.executable, "-m", "ddpm.main", *options]


def theirs(workdir: pathlib.Path, minutes: float, num: int) -> None:
    """Trains as the example and draws from the average, into theirs.npz."""
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler
    from diffusers.training_utils import EMAModel
    from theirs import diffusers

    from ddpm.data.decoded import in_memory

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    data = in_memory(datasets.training_set(fast_fashion.get_config()))
    data = torch.from_numpy(data.transpose(0, 3, 1, 2).copy())
    options, size, channels = NETWORKS["small"]
    model = diffusers(options, size, channels, dropout=0.0)
    average = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    noise = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    model.train()
    step, took, began = 0, 0.0, time.perf_counter()
    while took < 60 * minutes:
        decayed = min(step / 500, 1) * (1 + math.cos(math.pi * took / 60 / minutes)) / 2
        optimizer.param_groups[0]["lr"] = 1e-4 * decayed
        x_0 = data[torch.randint(len(data), (16,))].float() / 127.5 - 1
        x_0 = torch.where(torch.rand(16, 1, 1, 1) < 0.5, x_0.flip(3), x_0)
        eps, t = torch.randn_like(x_0), torch.randint(1000, (16,))
        loss = torch.nn.functional.mse_loss(model(noise.add_noise(x_0, eps, t), t).sample, eps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(model.parameters())
        step, took = step + 1, time.perf_counter() - began
    average.copy_to(model.parameters())
    model.eval()
    scheduler = DDIMScheduler.from_config(noise.config, timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    drawn = []
    with torch.inference_mode():
        for first in range(0, num, 100):
            x = torch.randn(min(100, num - first), channels, size, size)
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t).sample, t, x).prev_sample
            drawn.append(((x + 1) * 127.5).round().clamp(0, 255).byte().numpy().transpose(0, 2, 3, 1))
    (workdir / "theirs.json").write_text(json.dumps({"steps": step, "seconds": took, "num": num, "minutes": minutes}))
    np.savez(part := workdir / "part.npz", np.concatenate(drawn))
    part.replace(workdir / "theirs.npz")


if __name__ == "__main__":
    main()
