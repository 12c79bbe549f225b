"""A small U-Net on Fashion-MNIST in real time, the VP SDE of the score SDE paper, which every sampler can follow.

Paper:    Song et al. 2021 (score SDE), Eq. 11 with beta from 0.1 to 20, and the v of Salimans and Ho 2022
Command:  python -m ddpm.main --config experiments/samplers.py --workdir runs/samplers
Data:     the same command with --mode prepare, once
Hardware: about 10 minutes on two CPU cores
Expected: the table of `make samplers` in the README
"""

from ml_collections import ConfigDict

from experiments import objectives


def get_config() -> ConfigDict:
    """The experiment."""
    config = objectives.get_config("v")
    config.process.name = "ContinuousVP"
    config.training.update(num_steps=1500, save_every=500, sample_every=0)
    return config
