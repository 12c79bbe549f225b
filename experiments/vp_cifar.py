"""The VP SDE of score SDE on CIFAR-10, in continuous time.

Paper:    Song et al. 2021 (score SDE), table 3, with our U-Net at the size of DDPM++
Command:  python -m ddpm.main --config experiments/vp_cifar.py --workdir runs/vp_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: FID 2.55 and 3.16 bits/dim in the paper (DDPM++ cont. VP, 1.3M steps, predictor-corrector); here ancestral, not yet
          measured
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.process.name = "ContinuousVP"
    config.model.unet.num_res_blocks = 4
    config.training.num_steps = 1_300_000
    return config
