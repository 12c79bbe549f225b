"""Photographs of flowers in the latent space of TAEF2: latent diffusion with an autoencoder that others trained.

Paper:    Rombach et al. 2022 (latent diffusion), section 3
Command:  python -m ddpm.main --config experiments/latent_flowers.py --mode encode, once, and then
          python -m ddpm.main --config experiments/latent_flowers.py --workdir runs/latent_flowers
Data:     a folder of images of 64 x 64 pixels, one folder a class (tf_flowers); taef2_encoder.safetensors and
          taef2_decoder.safetensors of madebyollin/taesd
Hardware: two CPU cores, 27 minutes at 120 images a second
Expected: flowers of the class asked for, at guidance scale 3 (README)
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.name = "folder"
    config.data.folder.path = "data/flowers64"
    config.latents.update(autoencoder="data/taef2", path="data/flowers64_taef2")
    config.condition.labels = True
    config.schedule.name = "cosine"
    config.prediction.name = "v"
    config.model.unet.update(
        channels=96, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(8, 4), num_heads=4, dropout=0.1
    )
    config.optimizer.update(learning_rate=5e-4, warmup_steps=200)
    config.ema.update(decay=0.999, warmup=True)
    config.training.update(
        batch_size=64, num_steps=3000, log_every=50, sample_every=1000, evaluate_every=0, save_every=500
    )
    config.sampler.update(name="dpm_solver_pp", num_steps=20, clip=False)
    return config
