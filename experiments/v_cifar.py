"""v-prediction on CIFAR-10 with the cosine schedule in continuous time: the teacher of progressive distillation.

Paper:    Salimans and Ho 2022 (Progressive distillation), section 4 and appendix D
Command:  python -m ddpm.main --config experiments/v_cifar.py --workdir runs/v_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: FID 2.87 by DDIM in the paper's table 1 (v, weight SNR + 1, a network of 256 channels); not yet measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.process.name = "ContinuousVP"
    config.log_snr.name = "cosine"
    config.prediction.name = "v"
    config.weight.name = "output"
    config.sampler.update(name="ddim", num_steps=250)
    return config
