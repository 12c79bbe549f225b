"""DiT-XL/2 on ImageNet, 256 x 256: a transformer, told the class, on latents of 32 x 32 x 4.

Paper:    Peebles and Xie 2023, sections 4 and 5
Command:  python -m ddpm.main --config experiments/dit_imagenet256.py --mode encode, once, and then
          python -m ddpm.main --config experiments/dit_imagenet256.py --workdir runs/dit_imagenet256
Data:     the same command with --mode prepare, once; the folder of Stable Diffusion's autoencoder (sd-vae-ft-ema)
Hardware: paper: a TPU v3-256 pod, 5.7 steps a second; add --config.model.dit.dtype=bfloat16
Expected: paper: FID 9.62 after 7,000,000 steps, 2.27 with guidance_scale 1.5, 250 ancestral steps; not measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.name = "tfds"  # the paper mirrors half of the images as well
    config.data.tfds.update(dataset="imagenet2012", size=256)
    config.latents.update(autoencoder="data/sd-vae-ft-ema", path="data/imagenet256_sd")
    config.condition.labels = True
    config.loss.name = "hybrid"
    config.model.name = "dit"
    config.model.dit.update(width=1152, depth=28, num_heads=16)
    config.optimizer.update(learning_rate=1e-4, warmup_steps=0, clip_norm=float("inf"))
    config.training.update(batch_size=256, num_steps=7_000_000)
    config.sampler.update(num_steps=250, clip=False)
    config.sampler.ancestral.variance = "learned"
    return config
