"""Learning rates and predictions of a smaller, shorter digits run: six runs by `sweep`, or as many as `--search` chooses in `space`.

Paper:    as experiments/digits.py
Command:  python -m ddpm.main --config experiments/sweep_digits.py --workdir runs/rates
          python -m ddpm.main --config experiments/sweep_digits.py --workdir runs/search --search fid --trials 8
Data:     comes with scikit-learn
Hardware: two CPU cores, a minute or two a run
Expected: Frechet distance by pixels of v less than of eps at each rate; 0.265 of run 5 (500 samples against 1,000)
"""

from ml_collections import ConfigDict

from experiments import digits


def get_config() -> ConfigDict:
    """The experiment."""
    config = digits.get_config()
    config.model.unet.channels = 16
    config.training.update(num_steps=300, sample_every=300, evaluate_every=50, save_every=100)
    return config


def sweep(add):
    """Its runs, by number."""
    for rate in (5e-4, 2e-3, 8e-3):
        for prediction in ("eps", "v"):
            add({"optimizer.learning_rate": rate, "prediction.name": prediction})


def space(trial):
    """What a search chooses from."""
    trial.suggest_float("optimizer.learning_rate", 1e-4, 3e-2, log=True)
    trial.suggest_categorical("prediction.name", ["eps", "v"])
