"""DDPM on CIFAR-10 as in the paper: linear schedule, L_simple, 35,746,307 parameters.

Paper:    Ho et al. 2020, section 4 and appendix B
Command:  python -m ddpm.main --config experiments/linear_cifar.py --workdir runs/linear_cifar
Data:     the same command with --mode prepare, once
Hardware: paper: 8 TPU v3 cores, 10.6 hours; on an accelerator add --config.model.unet.dtype=bfloat16
Expected: FID 3.17 after 800,000 steps, 1000 ancestral steps (paper); not yet measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    return config
