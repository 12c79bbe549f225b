"""The digits, each told apart: the model knows which digit it draws, and can be guided to it.

Paper:    Ho and Salimans 2022 (classifier-free guidance), Algorithm 1
Command:  python -m ddpm.main --config experiments/digits_classes.py --workdir runs/digits_classes
Hardware: two minutes on two CPU cores
Expected: the table of `python benchmarks/guidance.py` in the README
"""

from ml_collections import ConfigDict

from experiments import digits


def get_config() -> ConfigDict:
    """The experiment."""
    config = digits.get_config()
    config.condition.update(labels=True, null_rate=0.15)
    config.training.evaluate_every = 0
    config.evaluation.features.name = "classifier"
    return config
