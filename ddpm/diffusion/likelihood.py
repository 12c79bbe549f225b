"""The likelihood of data by the probability-flow ODE, and bits per dimension of images.

The ODE is that of flow.py.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from ddpm.diffusion import flow
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import Process
from ddpm.errors import unknown_name
from ddpm.shapes import Data, Keys, PerExample


def ode_log_likelihood(
    model: Model,
    x_0: Data,
    *,
    keys: Keys,
    trace: str = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
    prior: Callable[[Data], PerExample] | None = None,
) -> tuple[PerExample, Int[Array, ""]]:
    """(log p(x_0) in nats [batch], network evaluations) by the probability-flow ODE from t_min to T.

    log p(x_0) = log p_T(x_T) + int div(dx/dt) dt, along the path that starts with x = alpha x_0 at t_min.

    So it is the density of x_0 + (sigma / alpha) eps at t_min, whatever the process' scale. Score SDE starts with x = x_0:
    the same where alpha is 1, and within 1e-5 bits per dimension for the VP SDE.
    All examples share their steps, each of which is right for each example: alone, an example is what it is in any batch
    within the tolerance, but not to the bit.

    Args:
      x_0: data [batch, *dims]; for bits per dimension dequantised ones.
      keys: one per example, for the trace.
      trace: of the Jacobian: 'rademacher' or 'gaussian' is z' J z of one draw z per example, the same along the path
        (Hutchinson's estimate: log p is unbiased but for the path's own error); 'exact' takes as many passes as dims.
      rtol, atol: error of a step, of the root mean square of x and of log p, each of the worst example.
      max_steps: log p of the whole batch is NaN where more would be needed.
      prior: x_T -> log density [batch]; N(0, prior_scale^2 I) if None.
    Raises:
      InputError: another trace.

    The process must have a finite log SNR at t_min.
    Song et al. 2021 (score SDE), Eq. 13, 39 and 40 (their D.2); Hutchinson's draws as in Grathwohl et al. 2019 (FFJORD).
    """
    import diffrax

    if trace not in TRACES:
        raise unknown_name("trace", trace, TRACES)
    process, dims = model.process, math.prod(x_0.shape[1:])
    flow_and_trace = TRACES[trace](keys, x_0)
    first, last = (flow.tau(process, t) for t in ends(process))

    def rates(tau, state, _):
        return flow_and_trace(lambda u: flow.rate(process, model, jnp.minimum(tau, last), u), state[0])

    solver = diffrax.Tsit5()
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rates), solver, first, last, flow.FIRST_STEP, (-jnp.tanh(first) * x_0, jnp.zeros_like(x_0, shape=len(x_0))),
        stepsize_controller=diffrax.PIDController(rtol, atol, norm=_worst), max_steps=max_steps, throw=False,
    )  # fmt: skip
    u_T, divergence = (y[-1] for y in solution.ys)
    scale_T = flow.scale(process, ends(process)[1])
    log_prior = (prior or _gaussian(process.prior_scale))(scale_T * u_T)
    log_p = log_prior + divergence + dims * (jnp.log(scale_T) + jnp.log(-jnp.tanh(first)))
    done = solution.result == diffrax.RESULTS.successful
    nfe = (
        solution.stats["num_steps"] * (solver.tableau.num_stages - 1) + 1
    )  # a step's last stage is the first of the next
    return jnp.where(done, log_p, jnp.nan), nfe


def dequantise(pixels: UInt8[Array, "batch *dims"], keys: Keys) -> Data:
    """Bytes as real data that fill [-1, 1) evenly: 2 (k + u) / 256 - 1 for levels k and u uniform in [0, 1).

    u has 16 bits, so that no sum is rounded in float32 and none is a level too high.

    Theis et al. 2016, section 3.1; Song et al. 2021 (score SDE), Appendix D.2.
    """
    bits = jax.vmap(lambda key: jax.random.bits(key, pixels.shape[1:], jnp.uint16))(keys)
    real = jnp.result_type(float)
    return (pixels.astype(real) + bits.astype(real) / 65536) / 128 - 1


def bits_per_dim(log_p: PerExample, dims: int) -> PerExample:
    """Bits per dimension of 256 levels, from the log density of their dequantised data in [-1, 1]: its mean bounds theirs.

    -log_p / (dims ln 2) + 7: a level is 2 / 256 wide, and -log2(2 / 256) = 7.

    Args:
      log_p: in nats [batch].
      dims: numbers of an example.

    Theis et al. 2016, Eq. 3 to 6.
    """
    return -log_p / (dims * math.log(2)) + 7


def ends(process: Process) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """t_min and T as reals: at integers a table without signal at T has no finite log SNR."""
    return jnp.asarray(process.t_min, jnp.result_type(float)), jnp.asarray(process.T, jnp.result_type(float))


def _hutchinson(draw):
    def fixed(keys, x_0):
        z = jax.vmap(lambda key: draw(key, x_0.shape[1:], x_0.dtype))(keys)

        def flow_and_trace(flow, u):
            rate, along_z = jax.jvp(
                flow, (u,), (z.astype(u.dtype),)
            )  # convolution gradients in a loop take ages on CPU
            return rate, _inner(along_z, z)

        return flow_and_trace

    return fixed


def _exact(keys, x_0):
    dims = math.prod(x_0.shape[1:])
    units = jnp.broadcast_to(jnp.eye(dims, dtype=x_0.dtype).reshape(dims, 1, *x_0.shape[1:]), (dims, *x_0.shape))

    def flow_and_trace(flow, u):
        rate, push = jax.linearize(flow, u)
        return rate, jax.vmap(lambda unit: _inner(push(unit), unit))(units).sum(0)

    return flow_and_trace


TRACES = {
    "rademacher": _hutchinson(jax.random.rademacher),
    "gaussian": _hutchinson(jax.random.normal),
    "exact": _exact,
}


def _inner(a, b):
    return (a * b).reshape(len(a), -1).sum(-1)


def _worst(error):
    x, log_p = error
    return jnp.maximum(jnp.sqrt(_inner(x, x) / math.prod(x.shape[1:])), jnp.abs(log_p)).max()


def _gaussian(scale):
    return lambda x: jax.scipy.stats.norm.logpdf(x, 0, scale).reshape(len(x), -1).sum(-1)
