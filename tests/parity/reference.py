"""diffusers' schedulers, set up as our processes. Their index of a time is ours minus 1."""

import sys

import torch

from ddpm.diffusion.processes import VP
from ddpm.diffusion.schedules import cosine, linear

PROCESSES = {"linear": VP(linear(1000)), "cosine": VP(cosine(1000))}
NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}  # of the schedules in diffusers


def make_scheduler(kind, schedule, *, exact=True, clip=False, **config):
    """A scheduler with diffusers' own float32 table, or (`exact`) with ours.

    test_schedules_and_posterior shows the two tables equal. In float32 1 - abar_t / abar_s of neighbours keeps only
    4 digits; with the table in float64, the formulas can be held to 1e-10.
    """
    scheduler = kind(beta_schedule=NAMES[schedule], timestep_spacing="trailing", clip_sample=clip, **config)
    if exact:
        scheduler.alphas_cumprod = torch.from_numpy(PROCESSES[schedule].alpha_bar[1:])
    return scheduler


def hand_noise(monkeypatch, scheduler, z):
    """Lets the scheduler draw z, if it draws at all; DDPMScheduler takes no noise."""
    module = sys.modules[type(scheduler).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: z, raising=False)
