"""EDM on CIFAR-10: noise as time, preconditioning, log-normal noise levels.

Paper:    Karras et al. 2022 (EDM), table 2, with our U-Net at its size and no augmentation but flips
Command:  python -m ddpm.main --config experiments/edm_cifar.py --workdir runs/edm_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: FID 1.97 in the paper (Heun's method in 35 evaluations, augmented, 200M images); here DDIM in 35, not yet measured
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.process.name = "EDM"
    config.prediction.name = "edm"
    config.weight.name = "edm"
    config.timesteps.name = "log_normal"
    config.model.unet.update(channel_mult=(2, 2, 2), num_res_blocks=4, dropout=0.13)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=19_531, clip_norm=float("inf"))  # 10M images
    config.ema.update(decay=0.9993, warmup=True)  # half-life 0.5M images
    config.training.update(batch_size=512, num_steps=390_625)  # 200M images
    config.sampler.update(name="ddim", num_steps=35, clip=False)
    config.grid.name = "karras"
    return config
