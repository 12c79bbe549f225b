"""The model p_theta(x_s | x_t) at given parameters: a network, and what its output means."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from ddpm.diffusion.prediction import Prediction, x0_and_eps
from ddpm.diffusion.process import Process
from ddpm.diffusion.uncertainty import Params
from ddpm.shapes import Data, PerExample, Time, over


class Estimate(NamedTuple):
    """What a model takes x_t for.

    x0, eps: x0_hat and eps_hat, with x_t = alpha_t x0_hat + sigma_t eps_hat.
    fraction: of a learned variance, how far log variance is from the least (0) to the largest (1) of its range; or None.
    """

    x0: Data
    eps: Data
    fraction: Data | None = None


class Model(NamedTuple):
    """A network, and what its output means.

    process: the forward process.
    prediction: what the network is asked for.
    network: (scaled x_t [batch, *dims], condition [batch]) -> output.
    learned_variance: the output has twice the channels, the second half for the variance.
    uncertainty: parameters of uncertainty.py, of losses that learn one.
    """

    process: Process
    prediction: Prediction
    network: Callable[[Data, PerExample], Data]
    learned_variance: bool = False
    uncertainty: Params | None = None

    def raw(self, x_t: Data, t: Time) -> Array:
        """What the network makes of x_t, at the scale and with the condition on t that its prediction type asks for."""
        prediction = self.prediction
        scaled = over(prediction.input_scale(self.process, t), x_t) * x_t if prediction.input_scale else x_t
        return self.network(scaled, jnp.broadcast_to(prediction.condition(self.process, t), x_t.shape[:1]))

    def output(self, x_t: Data, t: Time) -> tuple[Data, Data | None]:
        """What the network says of x_t, and the fraction of a learned variance: (v + 1) / 2 for its second half v.

        Nichol and Dhariwal 2021, Eq. 15, with the fraction of their code.
        """
        output = self.raw(x_t, t)
        if not self.learned_variance:
            return output, None
        output, v = jnp.split(output, 2, axis=-1)
        return output, (v + 1) / 2

    def __call__(self, x_t: Data, t: Time) -> Estimate:
        """What the model takes x_t [batch, *dims] for at times t, [batch] or one for all."""
        output, fraction = self.output(x_t, t)
        return Estimate(*x0_and_eps(self.process, self.prediction, output, x_t, t), fraction)
