"""Fashion-MNIST with a hole: inpainting by a model that is told the rest of the image.

Paper:    Saharia et al. 2022 (Palette), section 4
Command:  python -m ddpm.main --config experiments/fashion_inpainting.py --workdir runs/fashion_inpainting
Data:     the same command with --mode prepare, once
Hardware: 15 minutes on two CPU cores
Expected: 11.3 dB in the hole, FD 0.13, of 500 test images (`python benchmarks/restoration.py`)
"""

from ml_collections import ConfigDict

from experiments import objectives


def get_config() -> ConfigDict:
    """The experiment."""
    config = objectives.get_config("v")
    config.update_from_flattened_dict(objectives.VP)
    config.training.update(num_steps=1500, save_every=500, sample_every=1500)
    config.condition.image.name = "inpainting"
    return config
