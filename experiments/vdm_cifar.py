"""Variational diffusion models on CIFAR-10: the continuous bound, a learned noise schedule, Fourier features.

Paper:    Kingma et al. 2021 (VDM), section 6 and appendix C, with the learned network of appendix H for the schedule
Command:  python -m ddpm.main --config experiments/vdm_cifar.py --workdir runs/vdm_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.unet.dtype=bfloat16
Expected: 2.65 bits/dim in the paper (no augmentation, 10M steps); not yet measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.name = "tfds"
    config.data.tfds.dataset = "cifar10"
    config.process.name = "LearnedVP"
    config.loss.name = "vdm"
    config.timesteps.stratified = True
    config.model.unet.update(channel_mult=(1,), num_res_blocks=32, attention_resolutions=(), fourier=(6, 7))
    config.optimizer.update(name="adamw", warmup_steps=100, clip_norm=float("inf"))
    config.optimizer.adamw.update(b2=0.99, weight_decay=0.01)
    config.training.num_steps = 10_000_000
    config.evaluation.metrics = ("fid",)
    return config
