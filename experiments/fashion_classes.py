"""Fashion-MNIST, each kind told apart: the model knows what it draws, and can be guided to it.

Paper:    Ho and Salimans 2022 (classifier-free guidance), Algorithm 1
Command:  python -m ddpm.main --config experiments/fashion_classes.py --workdir runs/fashion_classes
Data:     the same command with --mode prepare, once
Hardware: 20 minutes on two CPU cores
Expected: 94.2 % of the asked class at guidance scale 2 (`python benchmarks/guidance.py --data fashion`)
"""

from ml_collections import ConfigDict

from experiments import objectives


def get_config() -> ConfigDict:
    """The experiment."""
    config = objectives.get_config("v")
    config.update_from_flattened_dict(objectives.VP)
    config.training.update(num_steps=1500, save_every=500, sample_every=1500)
    config.condition.update(labels=True, null_rate=0.15)
    return config
