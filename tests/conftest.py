"""Strict JAX: eight fake devices, no silent rank promotion; shapes are checked by jaxtyping (pyproject.toml)."""

import os
import pathlib

import jax
import pytest

REPO = pathlib.Path(__file__).parents[1]
CACHE = REPO / ".cache" / "jax"

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)  # of the commands that tests start
os.environ["JAX_PLATFORMS"] = "cpu"


@pytest.fixture
def x64():
    """Double precision, for exact formulas."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def tiny():
    """The digits experiment with a network that compiles in seconds."""
    from experiments import digits

    config = digits.get_config()
    config.model.unet.update(channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
    config.optimizer.update(warmup_steps=2)
    config.training.update(batch_size=16, num_steps=6, log_every=2, sample_every=0, save_every=3)
    config.sampler.update(num_steps=5, batch_size=8)
    return config
