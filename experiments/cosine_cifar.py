"""DDPM on CIFAR-10 with the cosine schedule.

Paper:    Ho et al. 2020 (network, training); Nichol and Dhariwal 2021, Eq. 17 (schedule)
Command:  python -m ddpm.main --config experiments/cosine_cifar.py --workdir runs/cosine_cifar
Data:     the same command with --mode prepare, once
Hardware: the papers' runs took hours on 8 TPU cores; on an accelerator add --config.model.unet.dtype=bfloat16
Expected: FID 3.05 at T = 4000 with L_simple (improved DDPM, table 2, dropout 0.3); not yet measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.schedule.name = "cosine"
    return config
