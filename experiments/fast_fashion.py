"""Fashion-MNIST in minutes on a CPU: rectified flow with logit-normal times and an average that forgets its start.

Paper:    Liu et al. 2023 (rectified flow); Esser et al. 2024, section 3.1 (logit-normal times)
Command:  python -m ddpm.main --config experiments/fast_fashion.py --workdir runs/fast_fashion
Data:     the same command with --mode prepare, once
Hardware: a CPU of two cores
Expected: benchmarks/time_to_quality.py measures it beside diffusers' example; the figures are in the README
"""

from ml_collections import ConfigDict

from experiments import flow_cifar


def get_config() -> ConfigDict:
    """The experiment."""
    config = flow_cifar.get_config()
    config.data.tfds.dataset = "fashion_mnist"
    config.timesteps.update(name="logit_normal", stratified=True)
    config.model.unet.update(channels=32, channel_mult=(1, 2, 2), attention_resolutions=(14,), dropout=0.0)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=100)
    config.ema.update(decay=0.999, warmup=True)
    config.training.update(batch_size=16, num_steps=4000, sample_every=0, evaluate_every=0, save_every=500)
    config.sampler.update(name="dpm_solver_pp", num_steps=20, clip=False, batch_size=100)
    return config
