"""A classifier of noised digits, which guides the unconditional model of digits.py to a class.

Paper:    Dhariwal and Nichol 2021, section 4
Command:  python -m ddpm.main --config experiments/digits_classifier.py --workdir runs/digits_classifier
          python -m ddpm.main --workdir runs/digits --mode sample --labels 3 --classifiers runs/digits_classifier
Hardware: one minute on two CPU cores
Expected: the table of `python benchmarks/guidance.py` in the README
"""

from ml_collections import ConfigDict

from experiments import digits


def get_config() -> ConfigDict:
    """The experiment."""
    config = digits.get_config()
    config.loss.name = "cross_entropy"
    config.model.name = "noisy_classifier"
    config.model.noisy_classifier.update(
        channels=24, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,), dropout=0.1
    )
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_steps=100)
    config.training.update(num_steps=1500, sample_every=0, evaluate_every=0)
    return config
