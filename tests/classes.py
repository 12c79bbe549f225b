"""The exact model of a mixture of classes, told the class or not."""

import jax
import jax.numpy as jnp
import numpy as np
from oracles import gaussian_eps, mixture_eps

from ddpm.condition import Condition, with_null
from ddpm.diffusion import predictions
from ddpm.diffusion.model import Model

MEANS, VARIANCES, SHARES = (
    np.array([[-0.6, 0.2], [0.5, 0.5], [0.1, -0.9]]),
    np.array([0.04, 0.09, 0.02]),
    np.ones(3) / 3,
)
NULL = 3


def both_of(labels):
    return with_null(Condition(labels), Condition(NULL)).labels


def class_model(process, labels):
    """The exact model of three classes that are Gaussian, told labels; the null label is their mixture."""

    def network(x_t, t):
        t = jnp.round(t).astype(jnp.int32) if process.discrete else t
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        told = jnp.broadcast_to(labels, len(x_t))
        which = jnp.minimum(told, 2)
        means, variances = jnp.asarray(MEANS)[which], jnp.asarray(VARIANCES)[which][:, None]
        of_class = gaussian_eps(means, variances, alpha, sigma, x_t)
        each = jax.vmap(lambda x, a, s: mixture_eps(MEANS, VARIANCES, SHARES, a, s, x[None])[0])
        return jnp.where(told[:, None] == NULL, each(x_t, alpha[:, 0], sigma[:, 0]), of_class)

    told_t = predictions.eps()._replace(condition=lambda process, t: jnp.asarray(t, jnp.result_type(float)))
    return Model(process, told_t, network)
