"""The probability-flow ODE with steps as long as a tolerance allows."""

import jax
import jax.numpy as jnp

from ddpm.diffusion import flow
from ddpm.diffusion.process import Process
from ddpm.errors import check_inside
from ddpm.sampling.denoise import Told
from ddpm.sampling.driver import Sampler, Step


def ode(process: Process, *, rtol: float | int = 1e-5, atol: float | int = 1e-5, max_steps: int = 4096) -> Sampler:
    """From t to s by Tsitouras' 5th-order method, each sample with steps of its own; then x0_hat where s = 0.

    The ODE is that of diffusion/flow.py. One step of the grid is enough: sampler.num_steps=1.

    Args:
      rtol, atol: error of a step, root mean square of the sample; positive.
      max_steps: a sample that would need more is not finite.
    Raises:
      InputError: a tolerance that is not positive.

    Song et al. 2021 (score SDE), Eq. 13 and section 4.3.
    """
    check_inside(0, jnp.inf, usual="score SDE uses 1e-5", rtol=rtol, atol=atol)
    return Sampler(lambda *given: _step(process, rtol, atol, max_steps, *given), 5, deterministic=True)


def _step(process, rtol, atol, max_steps, denoise, x_t, t, s, keys, carry=()):
    import diffrax

    of, given = denoise if isinstance(denoise, Told) else (lambda _: denoise, ())
    real = jnp.result_type(float)
    t, s = jnp.asarray(t, real), jnp.asarray(s, real)
    end = jnp.maximum(s, process.t_min)

    first, last = flow.tau(process, t), flow.tau(process, end)

    def inside(tau):
        return jnp.clip(tau, jnp.minimum(first, last), jnp.maximum(first, last))

    solver = diffrax.Tsit5()

    def solve(u, given):
        def rate(tau, u, _):
            each = jax.tree.map(lambda leaf: leaf[None], given)
            return flow.rate(process, of(each), inside(tau), u[None])[0]

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rate), solver, first, last, jnp.sign(last - first) * flow.FIRST_STEP, u,
            stepsize_controller=diffrax.PIDController(rtol, atol), max_steps=max_steps, throw=False,
        )  # fmt: skip
        done = solution.result == diffrax.RESULTS.successful
        # A step's last stage is the first of the next.
        nfe = solution.stats["num_steps"] * (solver.tableau.num_stages - 1) + 1
        return jnp.where(done, solution.ys[-1], jnp.nan), nfe

    u, nfe = jax.vmap(solve)(x_t / flow.scale(process, t), given)
    x_s = flow.scale(process, end) * u
    x_s = jax.lax.cond(s > 0, lambda: x_s, lambda: denoise(x_s, end).x0)
    return Step(x_s, nfe + jnp.where(s > 0, 0, 1))
