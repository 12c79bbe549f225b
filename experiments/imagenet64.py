"""Improved DDPM on ImageNet, 64 x 64: unconditional, or with `imagenet64.py:conditional` told the class.

Paper:    Nichol and Dhariwal 2021, section 4 and table 1
Command:  python -m ddpm.main --config experiments/imagenet64.py --workdir runs/imagenet64
Data:     the same command with --mode prepare, once
Hardware: several accelerators; add --config.model.unet.dtype=bfloat16
Expected: FID 19.2 and 3.57 bits/dim in the paper (1.5M steps of 128), conditional FID 2.92 (section 6); not measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(classes: str = "") -> ConfigDict:
    """The experiment; `classes` is '' or 'conditional'."""
    if classes not in ("", "conditional"):
        raise ValueError(f"unknown variant {classes!r} of imagenet64.py; known: conditional")
    config = base.get_config()
    config.data.update(name="tfds")
    config.data.tfds.dataset = "imagenet_resized/64x64"
    config.schedule.update(name="cosine", T=4000)
    config.loss.name = "hybrid"
    config.model.unet.update(
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=3,
        attention_resolutions=(16, 8),
        num_heads=4,
        scale_shift=True,
        dropout=0.0,
    )  # 121,063,942 parameters
    config.optimizer.update(learning_rate=1e-4, warmup_steps=0, clip_norm=float("inf"))
    config.training.num_steps = 1_500_000
    config.sampler.num_steps = 250
    config.sampler.ancestral.variance = "learned"
    if classes:
        config.condition.update(labels=True, null_rate=0.0)
        config.model.unet.channels = 192  # 273,049,350 parameters
    return config
