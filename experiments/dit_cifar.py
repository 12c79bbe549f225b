"""A diffusion transformer, DiT-S/2, on CIFAR-10, told the class.

Paper:    Peebles and Xie 2023, section 4, with its settings on the pixels of CIFAR-10 instead of latents of ImageNet
Command:  python -m ddpm.main --config experiments/dit_cifar.py --workdir runs/dit_cifar
Data:     the same command with --mode prepare, once
Hardware: an accelerator; add --config.model.dit.dtype=bfloat16
Expected: nothing in the paper, which has no CIFAR-10 (FID 68.4 of DiT-S/2 on ImageNet, unguided); not yet measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="tfds", flip=True)
    config.data.tfds.dataset = "cifar10"
    config.condition.update(labels=True, null_rate=0.1)
    config.model.name = "dit"
    config.loss.name = "hybrid"
    config.optimizer.update(learning_rate=1e-4, warmup_steps=0, clip_norm=float("inf"))
    config.training.update(batch_size=256, num_steps=400_000)
    config.sampler.num_steps = 250
    config.sampler.ancestral.variance = "learned"
    return config
