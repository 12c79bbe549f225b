"""An autoencoder of photographs of flowers, 64 x 64 in colour to 16 x 16 x 4 latents.

Paper:    Rombach et al. 2022 (latent diffusion), section 3.1 and appendix G; perceptual and adversarial losses of VQGAN
Command:  python -m ddpm.main --config experiments/autoencoder_flowers.py --workdir runs/autoencoder_flowers
Data:     a folder of images, cropped to 64 x 64 pixels as they are read: --config.data.folder.path=FOLDER
Hardware: an accelerator; sharper with --config.autoencoder.perceptual_weight=1.0, --config.autoencoder.discriminator_weight=0.5
Expected: not measured here yet
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.update(name="folder", flip=True)
    config.data.folder.path = "data/flowers64"
    config.autoencoder.name = "kl"
    config.autoencoder.kl.update(channels=64, channel_mult=(1, 2, 4))
    config.autoencoder.discriminator_start = 10_000
    config.optimizer.update(learning_rate=2e-4, warmup_steps=500)
    config.ema.update(decay=0.999, warmup=True)
    config.training.update(batch_size=32, num_steps=30_000, sample_every=2000, evaluate_every=5000, save_every=1000)
    config.evaluation.update(metrics=(), best="")
    return config
