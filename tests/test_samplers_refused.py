"""Processes and options that a sampler cannot take are refused, with the remedy."""

import jax.numpy as jnp
import numpy as np
import pytest
from samplers import SAMPLERS, table, vp_sde

from ddpm.diffusion import rescale, schedules
from ddpm.diffusion.model import Estimate
from ddpm.diffusion.processes import VP, RectifiedFlow
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling import driver, grids
from ddpm.sampling.ancestral import ancestral
from ddpm.sampling.ddim import ddim
from ddpm.sampling.deis import deis
from ddpm.sampling.dpm_solver import dpm_solver
from ddpm.sampling.dpm_solver_pp import dpm_solver_pp
from ddpm.sampling.euler import euler
from ddpm.sampling.euler_maruyama import euler_maruyama
from ddpm.sampling.heun import heun
from ddpm.sampling.ode import ode
from ddpm.sampling.pndm import pndm
from ddpm.sampling.predictor_corrector import predictor_corrector
from ddpm.sampling.sde_dpm_solver_pp import sde_dpm_solver_pp
from ddpm.sampling.unipc import unipc
from ddpm.shapes import over

process = table


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("process", ["a table without signal at T", "RectifiedFlow"])
def test_a_process_without_signal_at_T_is_sampled_or_refused(name, process):
    process = RectifiedFlow() if process == "RectifiedFlow" else without_signal()
    x_0 = jnp.array([[0.5, -0.25]])
    eps_of = lambda x_t, t: (x_t - over(process.alpha(t), x_t) * x_0) / over(process.sigma(t), x_t)  # noqa: E731
    times, keys = jnp.asarray(grids.trailing(process, 20)), per_index(stream(0, "x"), jnp.arange(1))
    options = {"order": 3} if name in ("dpm_solver_pp", "unipc") else {}
    try:
        sampler = SAMPLERS[name](process, **options)
    except InputError as error:
        assert name not in ("ancestral", "ddim", "dpm_solver_pp", "sde_dpm_solver_pp", "unipc", "ode", "euler")
        assert str(error) == NO_SIGNAL or "has levels only" in str(error)
        return
    run = driver.generate(sampler, lambda x, t: Estimate(x_0, eps_of(x, t)), times, keys, (2,))
    atol = 0.5 if name == "predictor_corrector" else 1e-4  # whose last step is one of many
    np.testing.assert_allclose(run.x, x_0, atol=atol)


def without_signal():
    return VP(rescale.zero_terminal_snr(schedules.linear(1000)))


NO_SIGNAL = "alpha_T = 0, and this sampler divides by it. Use dpm_solver_pp, unipc or ddim, which are in x0_hat."
LEVELS_ONLY = (
    "euler_maruyama follows an SDE in real time, and this process has levels only: use ancestral or ddim, or train with the process "
    "ContinuousVP, SubVP or VE."
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ddim(table(), eta=1.5),
            "eta = 1.5 is not in [0, 1]: 0 is deterministic DDIM, 1 is ancestral sampling.",
        ),
        (
            lambda: ancestral(table(), variance="posteror"),
            "unknown variance 'posteror'. Did you mean 'posterior'? Known: beta, learned, optimal, posterior.",
        ),
        (
            lambda: ancestral(table(), variance="optimal"),
            "variance 'optimal' needs eps_power, the mean square of what the network says at each time.",
        ),
        (lambda: euler_maruyama(table()), LEVELS_ONLY),
        (lambda: predictor_corrector(table()), LEVELS_ONLY.replace("euler_maruyama", "predictor_corrector")),
        (lambda: predictor_corrector(vp_sde(), snr=0), "snr = 0 is not in (0, inf); score SDE uses 0.16."),
        (lambda: predictor_corrector(vp_sde(), corrections=-1), "corrections = -1 must be at least 0."),
        (lambda: dpm_solver(table(), order=4), "order = 4 is none of 1, 2 and 3."),
        (lambda: dpm_solver_pp(table(), order=0), "order = 0 is none of 1, 2 and 3."),
        (
            lambda: sde_dpm_solver_pp(table(), order=3),
            "order = 3 is neither 1 nor 2: the SDE has no method of a higher one here.",
        ),
        (lambda: unipc(table(), variant="bh3"), "unknown variant 'bh3'. Did you mean 'bh2'? Known: bh1, bh2."),
        (
            lambda: dpm_solver_pp(table(), third_order="papr"),
            "unknown third_order 'papr'. Did you mean 'paper'? Known: consistent, paper.",
        ),
        (lambda: dpm_solver(without_signal()), NO_SIGNAL),
        (lambda: deis(without_signal()), NO_SIGNAL),
        (lambda: heun(without_signal()), NO_SIGNAL),
        (lambda: euler(without_signal(), s_churn=1), NO_SIGNAL),
        (lambda: euler_maruyama(RectifiedFlow()), NO_SIGNAL),
        (lambda: pndm(without_signal()), NO_SIGNAL),
        (lambda: heun(table(), s_churn=-1), "s_churn = -1 must not be negative; EDM's Table 5 has what it used."),
        (lambda: euler(table(), s_min=3, s_max=2), "s_min = 3 is above s_max = 2: no step would be churned."),
        (lambda: ode(table(), rtol=0), "rtol = 0 is not in (0, inf); score SDE uses 1e-5."),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
