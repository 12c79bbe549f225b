"""A model that was told classes, and sometimes none, draws the classes it is asked for, and all of them in their shares else."""

import numpy as np
import pytest

import ddpm
from ddpm.train import train

SHARE, NUM = 0.75, 400  # of bright images, and how many are drawn


@pytest.mark.slow
def test_without_a_label_classes_come_in_their_shares(tiny, tmp_path):
    random = np.random.default_rng(0)
    bright = random.random(512) < SHARE
    levels = np.where(bright, 220, 40)[:, None, None, None] + random.integers(-20, 21, (512, 8, 8, 1))
    np.savez(tmp_path / "levels.npz", arr_0=levels.astype(np.uint8), arr_1=bright.astype(np.int32))
    tiny.data.name, tiny.data.npz.path = "npz", str(tmp_path / "levels.npz")
    tiny.condition.labels = True
    tiny.condition.null_rate = 0.2
    tiny.training.update(batch_size=32, num_steps=400, save_every=400, log_every=100)
    tiny.optimizer.update(learning_rate=3e-3, warmup_steps=50)
    assert train(tiny, tmp_path / "run", accept_changes=False) == 0
    run = ddpm.load(tmp_path / "run")

    def share(**asked):
        images = run.sample(NUM, sampler="ddim", num_steps=20, batch_size=NUM, **asked)
        return (images.mean(axis=(1, 2, 3)) > 130).mean()

    atol = 4 * np.sqrt(SHARE * (1 - SHARE) * (1 / NUM + 1 / 512))  # of the samples, and of the data they are of
    assert abs(share(guidance_scale=0, labels=1) - SHARE) < atol
    assert share(labels=1) > 0.98 and share(labels=0) < 0.02
