"""The variational bound on -log p(x_0) of infinitely many steps, as three terms in bits per dimension.

-log p(x_0) <= KL(q(x_T | x_0) || p(x_T)) - E log p(x_0 | x_{t_min}) - 1/2 int d log_snr/dt E ||eps - eps_hat||^2 dt.

The last depends on log SNR at t_min and T, not on its way between them.
Kingma et al. 2021 (VDM), Eq. 11 and 17.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.likelihood import ends
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import Process, diffuse, rate
from ddpm.diffusion.processes.learned import LearnedVP, of_variance
from ddpm.diffusion.variational import check_data, prior_bpd
from ddpm.errors import InputError
from ddpm.shapes import Data, PerExample, Time, over

LEVELS = np.arange(256) / 127.5 - 1  # of an image in [-1, 1]


def check_noise(process: Process) -> None:
    """Refuses a process whose data have no noise at t_min: all bits would be told there, and a density is infinite.

    Raises:
      InputError: such a process.
    """
    if not isinstance(process, LearnedVP) and process.t_min == 0:
        raise InputError(
            "at t_min = 0 there is no noise, and a density of levels is infinite: use a t_min such as 1e-5."
        )


def vdm_bpd(model: Model, x_0: Data, eps: Data, t: Time) -> PerExample:
    """The bound, estimated at one time: prior + reconstruction + diffusion.

    One eps serves two terms: the mean of their sum is that of each.
    With a process that is learned, the gradient of its end points and of the network is the bound's, and that of its
    shape the gradient of the squared diffusion term, so of the estimate's variance: this takes one pass of the network more.

    Args:
      x_0: data [batch, *dims], of 256 levels in [-1, 1].
      eps: unit Gaussian noise, shaped as x_0.
      t: real times uniform in [t_min, T], [batch] or one for all.

    Kingma et al. 2021 (VDM), Eq. 11 and Appendix I.2.
    """
    process = model.process
    t = jnp.broadcast_to(jnp.asarray(t, eps.dtype), x_0.shape[:1])
    if isinstance(process, LearnedVP):
        loss = jax.lax.stop_gradient(diffusion_bpd(model, x_0, eps, t))
        model = model._replace(process=of_variance(process, loss))
    return prior_bpd(process, x_0) + reconstruction_bpd(process, x_0, eps) + diffusion_bpd(model, x_0, eps, t)


def reconstruction_bpd(process: Process, x_0: Data, eps: Data, t: Time | None = None) -> PerExample:
    """-log p(x_0 | z) of z = x_t, with p(x | z) proportional to q(z | x) over 256 levels, each dimension by itself.

    log p(x_i | z_i) = log softmax over levels v of -(z_i / alpha - v)^2 SNR / 2.

    Args:
      x_0: data [batch, *dims], each value one of 256 levels, 2 / 255 apart in [-1, 1].
      eps: unit Gaussian noise, shaped as x_0.
      t: one for all; t_min if None.
    Raises:
      InputError: data outside [-1, 1].

    Kingma et al. 2021 (VDM), Eq. 11 and section 3.3.
    """
    check_data(x_0)
    t = ends(process)[0] if t is None else t
    x = diffuse(process, x_0, t, eps) / process.alpha(t)
    distances = x[..., None] - jnp.asarray(LEVELS, x.dtype).reshape((1,) * x.ndim + (-1,))
    log_p = jax.nn.log_softmax(-(distances**2) * jnp.exp(process.log_snr(t)) / 2, axis=-1)
    level = jnp.round((x_0 + 1) * 127.5).astype(jnp.int32)
    return _bits(-jnp.take_along_axis(log_p, level[..., None], axis=-1)[..., 0])


def diffusion_bpd(model: Model, x_0: Data, eps: Data, t: Time) -> PerExample:
    """-(T - t_min) / 2 d log_snr/dt ||eps - eps_hat||^2: its mean over t uniform in [t_min, T] is the bound's integral.

    Args:
      x_0: data [batch, *dims] in [-1, 1].
      eps: unit Gaussian noise, shaped as x_0.
      t: real times in [t_min, T], [batch] or one for all; before T where no signal is left there.

    Kingma et al. 2021 (VDM), Eq. 17.
    """
    process = model.process
    t_min, T = ends(process)
    estimate = model(diffuse(process, x_0, t, eps), t)
    weight = (t_min - T) / 2 * rate(process.log_snr, jnp.asarray(t, x_0.dtype))
    return _bits(over(weight, x_0) * (eps - estimate.eps) ** 2)


def _bits(nats):
    return jnp.mean(nats, axis=tuple(range(1, nats.ndim))) / math.log(2)
