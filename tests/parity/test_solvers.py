"""Solvers against diffusers' schedulers: paths of an exact denoiser from the same x_T, through the same noise levels.

A step of theirs knows no more of a process than `sigmas`, sigma / alpha at its times. With ours there, in float64, every
formula can be held to 1e-9. test_noise_levels_are_those_of_diffusers shows their own sigmas to be ours, and in
test_solver_agrees_with_diffusers_as_shipped they stay.
"""

import functools
import inspect
import math

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import mixture_eps

from ddpm.diffusion import predictions
from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.processes import EDM
from ddpm.rng import fold_in_all, normal
from ddpm.sampling.deis import deis
from ddpm.sampling.dpm_solver import dpm_solver
from ddpm.sampling.dpm_solver_pp import dpm_solver_pp
from ddpm.sampling.driver import solve
from ddpm.sampling.euler import euler
from ddpm.sampling.euler_ancestral import euler_ancestral
from ddpm.sampling.grids import explicit, karras, leading, linspace, log_snr, trailing
from ddpm.sampling.heun import heun
from ddpm.sampling.pndm import pndm
from ddpm.sampling.sde_dpm_solver_pp import sde_dpm_solver_pp
from ddpm.sampling.unipc import unipc

from .reference import NAMES, PROCESSES, hand_noise

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # PyTorch's, with NumPy 2
    pytest.mark.filterwarnings("ignore:.*algorithm_types=dpmsolver:FutureWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning"),  # of their DEIS in a step to no noise
]
MIXTURE = np.array([[1.2, -0.9, 0.3], [-0.5, 0.7, -1.4], [0.1, 0.2, 0.9]]), np.array([0.04, 0.25, 0.01]), np.ones(3) / 3
BATCH, SHAPE = 4, (3,)
STEPS = (5, 10, 20, 50)
FEW = 15  # runs of fewer steps lower the order at their end
SIGMA_DATA = 0.5
EDM_PROCESS = EDM()


def trailing_then_first(process, num_steps, *, final):
    """Trailing, but with the last step to t = 1: what 'sigma_min' is to diffusers."""
    times = [*trailing(process, num_steps)[:-1].tolist(), process.t_min]
    return explicit(process, num_steps, final=final, times=times)


def name_of(solver):
    return " ".join([solver[0].__name__, *map(str, solver[1].values())])


SDE = {"algorithm_type": "sde-dpmsolver++"}
# Theirs repeats the least sigma where karras ends with 'sigma_min', and has another stride in DPM-Solver's leading.
GRIDS = [
    *(("linear", grid, final) for grid in (trailing, leading, linspace, karras) for final in ("zero", "sigma_min")),
    ("linear", trailing_then_first, "sigma_min"),
    ("cosine", trailing, "zero"),
]
SOLVERS = [  # ours and its options, theirs and its options
    *(
        (dpm_solver_pp, {"order": k, "third_order": "paper"}, "DPMSolverMultistep", {"solver_order": k})
        for k in (1, 2, 3)
    ),
    *((sde_dpm_solver_pp, {"order": k}, "DPMSolverMultistep", {"solver_order": k, **SDE}) for k in (1, 2)),
    *(
        (unipc, {"order": k, "variant": bh}, "UniPCMultistep", {"solver_order": k, "solver_type": bh})
        for bh in ("bh1", "bh2")
        for k in (1, 2, 3)
    ),
    *((deis, {"order": k}, "DEISMultistep", {"solver_order": k}) for k in (1, 2, 3)),
    (euler, {}, "EulerDiscrete", {}),
    (euler_ancestral, {}, "EulerAncestralDiscrete", {}),
    (heun, {}, "HeunDiscrete", {}),
]
EDM_SOLVERS = [(ours, options, f"EDM{kind}", config) for ours, options, kind, config in SOLVERS[:5]]
over_solvers = pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
over_grids = pytest.mark.parametrize(("schedule", "grid", "final"), GRIDS)
over_steps = pytest.mark.parametrize("num_steps", STEPS)


class Double(torch.Tensor):
    """Stays in double precision: steps of theirs cast x_t to float32."""

    def to(self, *_, **__):
        return self


@jax.jit
def exact_eps(x_t, sigma_edm):
    alpha = 1 / jnp.sqrt(1 + sigma_edm**2)
    return mixture_eps(*MIXTURE, alpha, sigma_edm * alpha, x_t)


@jax.jit
def exact_edm(scaled, sigma_edm):
    """What EDM's network must say for x0_hat to be exact."""
    total = sigma_edm**2 + SIGMA_DATA**2
    x_t = jnp.sqrt(total) * scaled
    x0_hat = x_t - sigma_edm * mixture_eps(*MIXTURE, 1.0, sigma_edm, x_t)
    return (x0_hat - SIGMA_DATA**2 / total * x_t) * jnp.sqrt(total) / (sigma_edm * SIGMA_DATA)


def denoiser_of(process):
    if process is EDM_PROCESS:
        return Model(process, predictions.edm(SIGMA_DATA), lambda x, c_noise: exact_edm(x, jnp.exp(4 * c_noise[0])))

    def denoise(x_t, t):
        eps = mixture_eps(*MIXTURE, process.alpha(t), process.sigma(t), x_t)
        return Estimate((x_t - process.sigma(t) * eps) / process.alpha(t), eps)

    return denoise


def keys():
    return jax.random.split(jax.random.key(0), BATCH)


@functools.cache
def noise(i):
    """Of step i; x_T is from that of 0."""
    return np.array(normal(fold_in_all(keys(), i), SHAPE))


@functools.cache  # one compilation for all numbers of steps
def program(algorithm, process, **options):
    sampler = algorithm(process, **options)

    def run(x_T, times, num_steps):
        return solve(sampler, denoiser_of(process), x_T, times, keys(), num_steps=num_steps, keep_path=True).path

    return jax.jit(run)


def our_path(algorithm, process, times, **options):
    padded = np.pad(times, (0, max(STEPS) + 2 - len(times)), mode="edge")
    return program(algorithm, process, **options)(process.prior_scale * noise(0), padded, len(times) - 1)[: len(times)]


def sigmas_of(process, times):
    times = jnp.asarray(times)
    return np.array(process.sigma(times) / process.alpha(times))


def make_scheduler(kind, num_steps, *, schedule="linear", final="zero", **config):
    """One that ends as ours, where it can."""
    make = getattr(diffusers, f"{kind}Scheduler")
    takes = inspect.signature(make).parameters
    if "beta_start" in takes:  # that of HeunDiscreteScheduler has another default
        config |= {"beta_schedule": NAMES[schedule], "beta_start": 1e-4, "beta_end": 0.02}
    if "final_sigmas_type" in takes:
        config["final_sigmas_type"] = final
    if kind == "UniPCMultistep":  # lowers the order at the end of runs of any length
        config["lower_order_final"] = final == "zero" or num_steps < FEW
    scheduler = make(**config)
    scheduler.set_timesteps(num_steps)
    return scheduler


def their_path(
    monkeypatch, scheduler, process, times, *, network=exact_eps, exact=True, before=lambda i: None, **options
):
    """x_t before and after every call, from `times[i]` to `times[i + 1]`, with our sigmas if `exact`."""
    if exact:
        scheduler.sigmas = torch.from_numpy(sigmas_of(process, times))
    scheduler.set_begin_index(0)  # else it searches for the time, and of rounded times some are the same
    # Those with an init_noise_sigma go from x / alpha to x / alpha.
    scale = np.array(process.alpha(jnp.asarray(times))) if scheduler.init_noise_sigma != 1 else np.ones(len(times))
    x = torch.from_numpy(process.prior_scale * noise(0) / scale[0]).as_subclass(Double if exact else torch.Tensor)
    path = [x]
    for i, t in enumerate(scheduler.timesteps):
        before(i)
        hand_noise(monkeypatch, scheduler, torch.from_numpy(noise(i + 1)))
        output = network(scheduler.scale_model_input(x, t).numpy(), float(scheduler.sigmas[i]))
        x = scheduler.step(torch.from_numpy(np.array(output)), t, x, **options).prev_sample
        path.append(x)
    return torch.stack(path).numpy() * scale[:, None, None]


def assert_same(ours, theirs, tolerance=1e-9):
    """Relative to the largest x_t: means of slopes lead far out from where alpha is next to 0, as in the cosine schedule."""
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max()))


def assert_solver(monkeypatch, solver, schedule, times, final, *, exact=True, tolerance=1e-9):
    ours, options, kind, config = solver
    process, num_steps, end = PROCESSES[schedule], len(times) - 1, len(times)
    shipped = {} if exact else {"timestep_spacing": "trailing"}
    scheduler = make_scheduler(kind, num_steps, schedule=schedule, final=final, **config, **shipped)
    if ours is heun:  # two calls a step, but for the last, which is Euler's, to no noise
        theirs = their_path(monkeypatch, scheduler, process, np.repeat(times, 2)[1:-1], exact=exact)
        theirs = np.concatenate([theirs[::2], theirs[-1:]])
        end -= final != "zero"
    else:
        theirs = their_path(monkeypatch, scheduler, process, times, exact=exact)
    if final == "zero" and (ours is deis or options.get("variant") == "bh1"):
        end -= 1  # DEIS of theirs knows no such step, bh1 makes it not a number
    if ours is unipc and options["order"] == 3 and final == "zero" and num_steps >= FEW:
        end = len(times) - 2  # theirs takes the step before the last at order 2
    assert_same(our_path(ours, process, times, **options)[:end], theirs[:end], tolerance)


@over_solvers
@over_grids
@over_steps
def test_solver_is_that_of_diffusers(monkeypatch, solver, schedule, grid, final, num_steps):
    times = grid(PROCESSES[schedule], num_steps, final=final)
    assert_solver(monkeypatch, solver, schedule, times, final)


@over_solvers
def test_solver_agrees_with_diffusers_as_shipped(monkeypatch, solver):
    grid, final = (trailing_then_first, "sigma_min") if solver[0] is deis else (trailing, "zero")
    times = grid(PROCESSES["linear"], 20, final=final)
    assert_solver(monkeypatch, solver, "linear", times, final, exact=False, tolerance=2e-5)


@pytest.mark.parametrize(
    ("algorithm", "form", "final"),
    [
        (dpm_solver, "dpmsolver", "sigma_min"),
        *((dpm_solver_pp, "dpmsolver++", final) for final in ("zero", "sigma_min")),
    ],
)
@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize("order", [2, 3])
@over_steps
def test_singlestep_solver_is_that_of_diffusers(monkeypatch, algorithm, form, final, schedule, order, num_steps):
    """A step of ours is `order` calls of theirs, with grid points between that ours places evenly in log SNR.

    So on a grid that is even in log SNR the paths meet after every group of calls.
    """
    process, last = PROCESSES[schedule], final == "zero"  # a step and a call of first order
    times, calls = (log_snr(process, n + last, final=final) for n in (num_steps, order * num_steps))
    config = {"solver_order": order, "algorithm_type": form, "lower_order_final": last}
    scheduler = make_scheduler("DPMSolverSinglestep", order * num_steps + last, final=final, **config)

    def set_rule(i):
        # Of the paper's third order, the second call is their 'heun' and the third their 'midpoint'.
        second_of_three = order == 3 and scheduler.order_list[i] == 2
        scheduler.register_to_config(solver_type="heun" if second_of_three else "midpoint")

    theirs = their_path(monkeypatch, scheduler, process, calls, before=set_rule)
    options = {"multistep": False} if algorithm is dpm_solver_pp else {}
    ours = our_path(algorithm, process, times, order=order, **options)
    assert_same(ours, np.concatenate([theirs[::order], theirs[-1:]][: 1 + last]))


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize(("grid", "final"), [(trailing, "zero"), (leading, "zero"), (trailing_then_first, "sigma_min")])
@pytest.mark.parametrize("runge_kutta", [False, True])
@over_steps  # divisors of T: theirs steps to t - T // num_steps, not to the next of its timesteps
def test_pndm_is_that_of_diffusers(schedule, grid, final, runge_kutta, num_steps):
    process = PROCESSES[schedule]
    spacing = "leading" if grid is leading else "trailing"
    scheduler = make_scheduler("PNDM", num_steps, skip_prk_steps=not runge_kutta, timestep_spacing=spacing)
    scheduler.alphas_cumprod = torch.from_numpy(process.alpha_bar[1:])
    scheduler.final_alpha_cumprod = torch.tensor(process.alpha_bar[int(final != "zero")])
    theirs = [torch.from_numpy(noise(0))]
    for index in scheduler.timesteps:
        eps = exact_eps(theirs[-1].numpy(), sigmas_of(process, index.item() + 1))
        theirs.append(scheduler.step(torch.from_numpy(np.array(eps)), index, theirs[-1]).prev_sample)
    # Four calls for each of the first three steps, or two for the first.
    ends = [0, 4, 8, *range(12, len(theirs))] if runge_kutta else [0, *range(2, len(theirs))]
    ours = our_path(pndm, process, grid(process, num_steps, final=final), runge_kutta=runge_kutta)
    assert_same(ours, torch.stack(theirs).numpy()[ends], tolerance=1e-8)


@pytest.mark.parametrize("solver", [(euler, {}, "EDMEuler", {}), *EDM_SOLVERS], ids=name_of)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@over_steps
def test_solver_of_edm_is_that_of_diffusers(monkeypatch, solver, final, num_steps):
    """One network for both: that its output is taken for the same x0_hat is compared as well."""
    ours, options, kind, config = solver
    times = karras(EDM_PROCESS, num_steps, final=final)
    scheduler = make_scheduler(kind, num_steps, final=final, sigma_data=SIGMA_DATA, **config)
    theirs = their_path(monkeypatch, scheduler, EDM_PROCESS, times, network=exact_edm)
    assert_same(our_path(ours, EDM_PROCESS, times, **options), theirs)


@over_steps
def test_churn_is_that_of_diffusers(monkeypatch, num_steps):
    """Above s_max no noise is added: ours never goes beyond that of T, theirs does."""
    s_churn, s_min, s_max, s_noise = 3.0, 0.05, 100.0, 1.007
    process, noises = PROCESSES["linear"], iter(range(1, num_steps + 1))

    def after_churn(scaled, sigma):
        """Their step adds the noise after the network was asked: ask it of what x_t will be."""
        gamma = min(s_churn / num_steps, math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0
        higher = sigma * (1 + gamma)
        x = scaled * math.sqrt(1 + sigma**2) + s_noise * math.sqrt(higher**2 - sigma**2) * noise(next(noises))
        return exact_eps(x / math.sqrt(1 + higher**2), higher)

    times = trailing(process, num_steps)
    scheduler = make_scheduler("EulerDiscrete", num_steps)
    options = {"s_churn": s_churn, "s_tmin": s_min, "s_tmax": s_max, "s_noise": s_noise}
    theirs = their_path(monkeypatch, scheduler, process, times, network=after_churn, **options)
    ours = our_path(euler, process, times, s_churn=s_churn, s_min=s_min, s_max=s_max, s_noise=s_noise)
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "config", "grid", "final", "away"),
    [
        ("EulerDiscrete", {"timestep_spacing": "trailing"}, trailing, "zero", 0),
        ("EulerDiscrete", {"timestep_spacing": "leading"}, leading, "zero", 0),
        ("EulerDiscrete", {"timestep_spacing": "linspace"}, linspace, "zero", 0.5),  # fractions, which ours rounds
        ("DPMSolverMultistep", {"timestep_spacing": "trailing"}, trailing, "zero", 0),
        ("DPMSolverMultistep", {"timestep_spacing": "trailing"}, trailing_then_first, "sigma_min", 0),
        # Without the last of num_steps + 1; a half is rounded to an even index by theirs, and to an even t by ours.
        ("DPMSolverMultistep", {"timestep_spacing": "linspace"}, linspace, "sigma_min", 1),
        ("DPMSolverMultistep", {"use_karras_sigmas": True}, karras, "zero", None),  # rounds t, but not sigma
        ("DPMSolverMultistep", {"use_exponential_sigmas": True}, log_snr, "zero", None),  # cuts t down to integers
        ("EDMEuler", {}, karras, "zero", None),
        ("EDMDPMSolverMultistep", {"sigma_schedule": "exponential"}, log_snr, "zero", None),
    ],
)
@over_steps
def test_noise_levels_are_those_of_diffusers(kind, config, grid, final, away, num_steps):
    process = EDM_PROCESS if kind.startswith("EDM") else PROCESSES["linear"]
    times = grid(process, num_steps, final=final)
    scheduler = make_scheduler(kind, num_steps, final=final, **config)
    if process is not EDM_PROCESS:  # in float32, 1 - alpha_bar_1 has 3 digits
        scheduler.alphas_cumprod = torch.from_numpy(process.alpha_bar[1:])
        scheduler.set_timesteps(num_steps)
    if away is not None:
        np.testing.assert_allclose(times[:-1] - 1, scheduler.timesteps, rtol=0, atol=away + 1e-4)
    if not away:
        np.testing.assert_allclose(sigmas_of(process, times), scheduler.sigmas, rtol=1e-6)
