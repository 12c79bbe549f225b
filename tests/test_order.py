"""The order of convergence of every sampler, as a slope, against an exact solution of the probability-flow ODE."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import mixture_eps, mixture_ode
from processes import eps_model

from ddpm.diffusion.continuous import linear
from ddpm.diffusion.processes import ContinuousVP
from ddpm.rng import per_index, stream
from ddpm.sampling import driver
from ddpm.sampling.ddim import ddim
from ddpm.sampling.deis import deis
from ddpm.sampling.denoise import denoiser
from ddpm.sampling.dpm_solver import dpm_solver
from ddpm.sampling.dpm_solver_pp import dpm_solver_pp
from ddpm.sampling.euler import euler
from ddpm.sampling.heun import heun
from ddpm.sampling.ode import ode
from ddpm.sampling.pndm import pndm
from ddpm.sampling.unipc import unipc

pytestmark = pytest.mark.usefixtures("x64")
MIXTURE = np.array([[1.2, -0.9], [-0.5, 0.7], [0.1, 0.2]]), np.array([0.04, 0.25, 0.09]), np.array([0.5, 0.3, 0.2])
END = 0.2
STEPS = (64, 128, 256, 512)


@functools.cache
def vp():
    return ContinuousVP(functools.partial(linear, beta_min=0.1, beta_max=20.0))


def denoise():
    return denoiser(
        eps_model(vp(), lambda x, t: mixture_eps(*MIXTURE, vp().alpha(t[0]), vp().sigma(t[0]), x)), clip=False
    )


@functools.cache
def start_and_end():
    x_T = np.random.default_rng(0).normal(size=(64, 2))
    return x_T, mixture_ode(*MIXTURE, 0.1, 20.0, 1.0, END, x_T)


def even_in_t(num):
    return np.linspace(1, END, num + 1)


def even_in_log_snr(num):
    first, last = (float(vp().log_snr(t)) for t in (1.0, END))
    return np.concatenate([[1.0], vp().time(jnp.linspace(first, last, num + 1)[1:-1]), [END]])


def errors(sampler, times_of, steps=STEPS):
    """Root mean square error of 64 paths by the number of steps; one compilation for all."""
    x_T, exact = start_and_end()
    keys = per_index(stream(0, "x"), jnp.arange(64))
    run = jax.jit(lambda times, n: driver.solve(sampler, denoise(), jnp.asarray(x_T), times, keys, num_steps=n).x)
    found = []
    for n in steps:
        times = np.pad(times_of(n), (0, max(steps) - n), mode="edge")
        found.append(np.sqrt(np.mean((run(jnp.asarray(times), n) - exact) ** 2)))
    return np.array(found)


CASES = {
    "ddim": (ddim, {}, 1),
    "euler": (euler, {}, 1),
    "dpm_solver 1": (dpm_solver, {"order": 1}, 1),
    "dpm_solver 2": (dpm_solver, {"order": 2}, 2),
    "dpm_solver 3": (dpm_solver, {"order": 3}, 3),
    "dpm_solver_pp 1": (dpm_solver_pp, {"order": 1}, 1),
    "dpm_solver_pp 2S": (dpm_solver_pp, {"order": 2, "multistep": False}, 2),
    "dpm_solver_pp 3S": (dpm_solver_pp, {"order": 3, "multistep": False}, 3),
    "dpm_solver_pp 2M": (dpm_solver_pp, {"order": 2}, 2),
    "dpm_solver_pp 3M": (dpm_solver_pp, {"order": 3}, 3),
    "dpm_solver_pp 3M paper": (dpm_solver_pp, {"order": 3, "third_order": "paper"}, 2),
    "heun": (heun, {}, 2),
    "deis 1": (deis, {"order": 1}, 1),
    "deis 2": (deis, {"order": 2}, 2),
    "deis 3": (deis, {"order": 3}, 3),
    "unipc 1 bh1": (unipc, {"order": 1, "variant": "bh1"}, 2),
    "unipc 1 bh2": (unipc, {"order": 1, "variant": "bh2"}, 2),
    "unipc 2 bh1": (unipc, {"order": 2, "variant": "bh1"}, 3),
    "unipc 2 bh2": (unipc, {"order": 2, "variant": "bh2"}, 3),
    "unipc 3 bh1": (unipc, {"order": 3, "variant": "bh1"}, 4),
    "unipc 3 bh2": (unipc, {"order": 3, "variant": "bh2"}, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_falls_with_the_order_that_is_stated(name):
    make, options, order = CASES[name]
    sampler = make(vp(), **options)
    assert sampler.order == order and sampler.deterministic
    found = errors(sampler, even_in_log_snr)
    slope = -np.polyfit(np.log(STEPS), np.log(found), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("runge_kutta", [True, False])
def test_pndm_is_of_second_order_on_even_times(runge_kutta):
    sampler = pndm(vp(), runge_kutta=runge_kutta)
    found = errors(sampler, even_in_t)
    slope = -np.polyfit(np.log(STEPS), np.log(found), 1)[0]
    assert slope == pytest.approx(sampler.order, abs=0.15)


def test_the_adaptive_ode_is_as_exact_as_its_tolerance():
    for tolerance in (1e-4, 1e-6, 1e-8):
        (found,) = errors(ode(vp(), rtol=tolerance, atol=tolerance), even_in_t, steps=(1,))
        assert tolerance / 100 < found < 10 * tolerance
