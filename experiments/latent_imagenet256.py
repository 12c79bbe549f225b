"""LDM-4 on ImageNet, 256 x 256: the U-Net of latent diffusion, told the class, on latents of 64 x 64 x 3.

Paper:    Rombach et al. 2022 (latent diffusion), section 4.3.2 and table 12
Command:  python -m ddpm.main --config experiments/latent_imagenet256.py --mode encode, once, and then
          python -m ddpm.main --config experiments/latent_imagenet256.py --workdir runs/latent_imagenet256
Data:     the same command with --mode prepare, once; an autoencoder with factor 4 and 3 channels, such as a run of ours
Hardware: paper: one A100 for 271 days, or as many as there are; add --config.model.unet.dtype=bfloat16
Expected: paper: FID 10.56 after 178,000 steps, 3.60 with guidance_scale 1.5, 250 DDIM steps; not measured here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.name = "tfds"
    config.data.tfds.update(dataset="imagenet2012", size=256)
    config.latents.update(autoencoder="runs/autoencoder_imagenet256", path="data/imagenet256_f4")
    config.condition.labels = True  # added to the time; the paper attends to an embedding of the class
    config.schedule.name = "quadratic"
    config.schedule.quadratic.update(beta_1=0.0015, beta_T=0.0195)
    config.model.unet.update(
        channels=192,
        channel_mult=(1, 2, 3, 5),
        attention_resolutions=(32, 16, 8),
        attention="transformer",
        head_channels=32,
        dropout=0.0,
    )
    config.optimizer.update(learning_rate=1e-4, warmup_steps=0)
    config.training.update(batch_size=1200, num_steps=178_000)
    config.sampler.update(name="ddim", num_steps=250, clip=False)
    return config
