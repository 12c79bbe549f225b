"""A variance-preserving process whose log SNR is learned: its end points for the bound, its shape for the bound's variance."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.diffusion.process import Process
from ddpm.errors import check_at_least, check_inside
from ddpm.shapes import Key, PerExample, PerTime, Time, over

Params = dict[str, dict[str, Float[Array, "*shape"]]]
LOG_SNR_MAX, LOG_SNR_MIN = 13.3, -5.0


def init(
    key: Key, *, log_snr_max: float | int = LOG_SNR_MAX, log_snr_min: float | int = LOG_SNR_MIN, features: int = 1024
) -> Params:
    """Parameters of LearnedVP: 'ends' of log SNR, and a 'shape' that is close to a line between them.

    Args:
      log_snr_max, log_snr_min: log SNR at t = 0 and 1.
      features: width of the shape's network, at least 1.
    Raises:
      InputError: log_snr_min is not below log_snr_max, or features < 1.

    Kingma et al. 2021 (VDM), Appendix H.
    """
    usual = "VDM starts with 13.3 and -5; sampling starts from noise"
    check_inside(-math.inf, min(log_snr_max, -4.5), usual=usual, log_snr_min=log_snr_min)
    check_at_least(1, features=features)
    w_2, b_2, w_3 = jax.random.normal(key, (3, features), jnp.result_type(float))
    return {
        "ends": {"log_snr_max": jnp.asarray(float(log_snr_max)), "log_snr_min": jnp.asarray(float(log_snr_min))},
        "shape": {"w_1": jnp.asarray(1.0), "w_2": w_2, "b_2": b_2, "w_3": w_3},
    }


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedVP(Process):
    """alpha_t^2 = sigmoid(log SNR), with log SNR falling from one learned end to the other as a monotone network of t.

    log_snr(t) = (1 - s) log_snr_max + s log_snr_min,  s = (l(t) - l(0)) / (l(1) - l(0)),
    l(t) = l_1(t) + l_3(sigmoid(l_2(l_1(t)))),  linear layers of positive weights: the softplus of the parameters.

    Biases of l_1 and l_3 would change nothing and are left out; l_3 is a mean over its features.

    Args:
      params: those of init.
      per_example: the shape's parameters have a leading axis, one set for each t (of_variance).

    Kingma et al. 2021 (VDM), Eq. 3 and Appendix H.
    """

    params: Params
    per_example: bool = False
    init = staticmethod(init)
    T, t_min = 1.0, 0.0

    def alpha(self, t: Time) -> PerTime:
        return jnp.sqrt(jax.nn.sigmoid(self.log_snr(t)))

    def fraction(self, t: Time) -> PerTime:
        """Of log SNR on its way between the first end points: the network is told of noise, not of time."""
        return (LOG_SNR_MAX - self.log_snr(t)) / (LOG_SNR_MAX - LOG_SNR_MIN)

    def sigma(self, t: Time) -> PerTime:
        return jnp.sqrt(jax.nn.sigmoid(-self.log_snr(t)))

    def log_snr(self, t: Time) -> PerTime:
        ends, shape = self.params["ends"], self.params["shape"]
        t = jnp.asarray(t, ends["log_snr_max"].dtype)
        s = jax.vmap(_shape, (0 if self.per_example else None, 0))(shape, t) if t.ndim else _shape(shape, t)
        return (1 - s) * ends["log_snr_max"] + s * ends["log_snr_min"]


def of_variance(process: LearnedVP, loss: PerExample) -> LearnedVP:
    """The same process, for the loss whose gradient it then gives the shape is that of the loss' square.

    The bound's mean over t does not depend on the shape, so all that the shape can change is the variance of its
    estimate, and d/dshape E[L^2] = E[2 L dL/dshape]: each example's gradient is taken times its 2 L on its way to the shape.
    The end points' and the network's are as they are. Parameters are what is scaled, one copy per example, since
    alpha, sigma, log SNR and their rates in t all stay what they are.

    Args:
      loss: L [batch], without gradient, of the examples whose times [batch] the process is then asked for.

    Kingma et al. 2021 (VDM), Appendix I.2.
    """
    factor = 2 * jax.lax.stop_gradient(loss)
    copies = lambda x: scale_gradient(jnp.broadcast_to(x, (*loss.shape, *x.shape)), factor)  # noqa: E731
    shape = jax.tree.map(copies, process.params["shape"])
    return LearnedVP({"ends": process.params["ends"], "shape": shape}, per_example=True)


@jax.custom_vjp
def scale_gradient(x: Float[Array, "batch *dims"], factor: PerExample) -> Float[Array, "batch *dims"]:
    """x, whose gradient is multiplied with a factor per example."""
    return x


scale_gradient.defvjp(
    lambda x, factor: (x, factor), lambda factor, gradient: (over(factor, gradient) * gradient, jnp.zeros_like(factor))
)


def _shape(params, t):
    w_1, w_2, w_3 = (jax.nn.softplus(params[name]) for name in ("w_1", "w_2", "w_3"))
    b_2 = params["b_2"]

    def rise(t):
        return w_1 * t + jnp.mean(w_3 * (jax.nn.sigmoid(w_2 * (w_1 * t) + b_2) - jax.nn.sigmoid(b_2)))

    to_t, to_1 = jax.vmap(rise)(jnp.stack([t, jnp.ones_like(t)]))  # as one, so that t = 1 is rounded as the 1 is
    return to_t / to_1
