"""The VE SDE of score SDE on CIFAR-10.

Paper:    Song et al. 2021 (score SDE), table 3, with our U-Net at the size of NCSN++
Command:  python -m ddpm.main --config experiments/ve_cifar.py --workdir runs/ve_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: FID 2.38 in the paper (NCSN++ cont. VE, 1.3M steps, predictor-corrector); here DDIM, not yet measured
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.process.name = "VE"
    config.model.unet.num_res_blocks = 4
    config.ema.decay = 0.999
    config.training.num_steps = 1_300_000
    config.sampler.name = "ddim"
    config.grid.name = "log_snr"
    return config
