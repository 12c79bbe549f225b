"""Rectified flow, that is flow matching with straight paths, on CIFAR-10.

Paper:    Lipman et al. 2023 (Flow matching), table 1; Liu et al. 2023 (rectified flow)
Command:  python -m ddpm.main --config experiments/flow_cifar.py --workdir runs/flow_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: not yet measured here (2.99 bits/dim in the first paper, by a network and a training of twice the size)
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.process.name = "RectifiedFlow"
    config.prediction.name = "velocity"
    config.weight.name = "output"
    config.training.num_steps = 400_000
    config.sampler.update(name="ddim", num_steps=100, clip=False)
    return config
