"""Fashion-MNIST from 7 x 7 to 28 x 28 pixels: super-resolution by a model that is told the small image.

Paper:    Saharia et al. 2021 (SR3), with the noise augmentation of Ho et al. 2021 (cascaded diffusion)
Command:  python -m ddpm.main --config experiments/fashion_super_resolution.py --workdir runs/fashion_super_resolution
Data:     the same command with --mode prepare, once
Hardware: 15 minutes on two CPU cores
Expected: 17.4 dB and FD 0.08 of 500 test images, cubic interpolation 15.7 dB and 6.2 (`python benchmarks/restoration.py`)
"""

from ml_collections import ConfigDict

from experiments import objectives


def get_config() -> ConfigDict:
    """The experiment."""
    config = objectives.get_config("v")
    config.update_from_flattened_dict(objectives.VP)
    config.training.update(num_steps=1500, save_every=500, sample_every=1500)
    config.condition.image.name = "super_resolution"
    config.condition.image.super_resolution.update(factor=4, noise=0.3)
    return config
