"""Improved DDPM on CIFAR-10 for its likelihood: L_vlb, with importance sampling of t.

Paper:    Nichol and Dhariwal 2021, section 3.3 and table 2
Command:  python -m ddpm.main --config experiments/vlb_cifar.py --workdir runs/vlb_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: 2.94 bits/dim and FID 11.47 in the paper (500,000 steps); not yet measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.name = "tfds"
    config.data.tfds.dataset = "cifar10"
    config.schedule.update(name="cosine", T=4000)
    config.loss.name = "vlb"
    config.timesteps.name = "loss_second_moment"
    config.model.unet.update(
        num_res_blocks=3, attention_resolutions=(16, 8), num_heads=4, scale_shift=True, dropout=0.3
    )  # 52,546,438 parameters
    config.optimizer.update(learning_rate=1e-4, warmup_steps=0, clip_norm=float("inf"))
    config.training.num_steps = 500_000
    config.sampler.num_steps = 4000
    config.sampler.ancestral.variance = "learned"
    return config
