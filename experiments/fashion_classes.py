"""Fashion-MNIST, each kind told apart: the model knows what it draws, and can be guided to it.

Paper:    Ho and Salimans 2022 (classifier-free guidance), Algorithm 1
Command:  python -m ddpm.main --config experiments/fashion_classes.py --workdir runs/fashion_classes
Data:     the same command with --mode prepare, once
Hardware: 20 minutes on two CPU cores
Expected: the table of `python benchmarks/guidance.py --config experiments/fashion_classes.py` in the README
"""

from ml_collections import ConfigDict

from experiments import samplers


def get_config() -> ConfigDict:
    """The experiment."""
    config = samplers.get_config()
    config.condition.update(labels=True, null_rate=0.15)
    return config
