"""A small U-Net on Fashion-MNIST, 28 x 28 grey.

Paper:    Ho et al. 2020 (method); Nichol and Dhariwal 2021, Eq. 17 (schedule)
Command:  python -m ddpm.main --config experiments/fashion.py --workdir runs/fashion
Data:     the same command with --mode prepare, once
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "fashion_mnist"
    config.schedule.name = "cosine"
    config.model.unet.update(channels=32, channel_mult=(1, 2, 2), num_res_blocks=1, attention_resolutions=(7,))
    config.optimizer.update(learning_rate=1e-3, warmup_steps=500)
    config.ema.update(decay=0.999, warmup=True)
    config.training.update(batch_size=64, num_steps=20_000, sample_every=2000, evaluate_every=5000, save_every=1000)
    config.sampler.num_steps = 100
    return config
