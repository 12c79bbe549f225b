"""A small autoencoder on Fashion-MNIST, 28 x 28 grey to 7 x 7 x 4 latents.

Paper:    Rombach et al. 2022 (latent diffusion), section 3.1 and appendix G
Command:  python -m ddpm.main --config experiments/autoencoder_fashion.py --workdir runs/autoencoder_fashion
Data:     the same command with --mode prepare, once
Hardware: two CPU cores; 54 minutes where ten other processes shared them
Expected: of the 10,000 test images PSNR 28.0 dB, 4.25 bits/dim, deviation of the latents 1.006 to 1.012 (each channel), by
          python -m ddpm.main --mode eval --workdir runs/autoencoder_fashion --reference fashion_mnist:test --num 10000
"""

from ml_collections import ConfigDict

from experiments import base


def get_config() -> ConfigDict:
    """The experiment."""
    config = base.get_config()
    config.data.name = "tfds"
    config.data.tfds.dataset = "fashion_mnist"
    config.autoencoder.name = "kl"
    config.autoencoder.kl.update(channels=16, channel_mult=(1, 2, 4), num_res_blocks=1)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=200)
    config.ema.update(decay=0.999, warmup=True)
    config.training.update(batch_size=32, num_steps=5000, sample_every=1000, evaluate_every=2500)
    config.training.save_every = 1000
    config.evaluation.metrics = ("fid",)
    return config
