"""Zero terminal SNR against diffusers' rescale_zero_terminal_snr."""

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from ddpm.diffusion.rescale import zero_terminal_snr
from ddpm.diffusion.schedules import cosine, linear, quadratic


@pytest.mark.parametrize(
    "table", [linear(1000), quadratic(1000, 0.00085, 0.012), cosine(50)], ids=["linear", "quadratic", "cosine"]
)
def test_zero_terminal_snr_is_that_of_diffusers(table):
    betas = rescale_zero_terminal_snr(torch.from_numpy(1 - table[1:] / table[:-1]))
    np.testing.assert_allclose(zero_terminal_snr(table)[1:], np.cumprod(1 - betas.numpy()), rtol=1e-9)
