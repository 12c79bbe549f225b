"""Training losses by name."""

import jax.numpy as jnp

from ddpm.diffusion.continuous_bound import check_noise, vdm_bpd
from ddpm.diffusion.loss import Loss
from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.prediction import target, x0_and_eps
from ddpm.diffusion.process import diffuse
from ddpm.diffusion.uncertainty import balanced, log_uncertainty
from ddpm.diffusion.variance import check
from ddpm.diffusion.variational import check_learned, term_bpd, term_of_estimate
from ddpm.diffusion.weights import Weight
from ddpm.errors import InputError, check_inside
from ddpm.shapes import Data, PerExample, Time

LOG_SNR_RANGE = 30.0  # without signal log SNR is infinite, and its cosine nothing


def weighted(weight: Weight) -> Loss:
    """The squared error of what the network is asked for, averaged over all but the batch dimension, times a weight.

    w(t) ||target - output||^2 / dims.

    Args:
      weight: (process, prediction, t) -> w(t) >= 0, such as those of weights.py.

    Ho et al. 2020, Eq. 14 (L_simple: prediction eps, w = 1); Kingma and Gao 2023, Eq. 7.
    """

    def per_example(model, x_0, eps, t):
        output, _ = model.output(diffuse(model.process, x_0, t, eps), t)
        return _squared_error(model, weight, output, x_0, eps, t)

    return Loss(per_example)


def uncertain(weight: Weight) -> Loss:
    """The weighted loss over what it is expected to be at that noise, which is learned: every noise counts the same.

    L_weighted / exp(u) + u,  u = log_uncertainty(c_noise),  c_noise = log(sigma_t / alpha_t) / 4.

    Args:
      weight: as for weighted; EDM2 uses edm.

    Karras et al. 2024 (EDM2), Eq. 15.
    """

    def per_example(model, x_0, eps, t):
        c_noise = -jnp.clip(model.process.log_snr(t), -LOG_SNR_RANGE, LOG_SNR_RANGE) / 8
        return balanced(weighted(weight).per_example(model, x_0, eps, t), log_uncertainty(model.uncertainty, c_noise))

    return Loss(per_example, learns_uncertainty=True)


def vdm() -> Loss:
    """The bound of infinitely many steps, all three terms, in bits per dimension; with a learned process, VDM's training.

    Raises:
      InputError: per_example: a process of levels, or one without any noise at t_min.

    Kingma et al. 2021 (VDM), Eq. 11 and 17.
    """

    def per_example(model, x_0, eps, t):
        if model.process.discrete:
            raise InputError(
                "loss 'vdm' is an integral over real times, not a sum over levels: use loss 'vlb' instead."
            )
        check_noise(model.process)
        return vdm_bpd(model, x_0, eps, t)

    return Loss(per_example, needs_uniform=True, learns_process=True)


def hybrid(weight: Weight, vlb_weight: float | int = 0.001) -> Loss:
    """L_hybrid = L_weighted + vlb_weight L_vlb: a learned variance, whose mean learns from L_weighted alone.

    L_vlb = T L_t in bits per dimension: an unbiased estimate of the bound, less its prior term, for t uniform in 1..T.

    Args:
      weight: as for weighted; improved DDPM uses 1.
      vlb_weight: positive; with 0.001 it is OpenAI's RESCALED_MSE.
    Raises:
      InputError: vlb_weight <= 0. per_example: a process without levels, or a model without learned variance.

    Nichol and Dhariwal 2021, Eq. 16.
    """
    check_inside(0, jnp.inf, usual="improved DDPM uses 0.001", vlb_weight=vlb_weight)

    def per_example(model, x_0, eps, t):
        _check(model, "learned", "hybrid")
        process = model.process
        x_t = diffuse(process, x_0, t, eps)
        output, fraction = model.output(x_t, t)  # of one evaluation for both
        estimate = Estimate(*x0_and_eps(process, model.prediction, output, x_t, t), fraction)
        l_t = term_of_estimate(process, "learned", estimate, x_0, x_t, t - 1, t, stop_mean=True)
        return _squared_error(model, weight, output, x_0, eps, t) + vlb_weight * process.T * l_t

    return Loss(per_example, outputs=2, needs_uniform=True)


def vlb(variance: str = "learned", rescaled: bool = True) -> Loss:
    """L_vlb = T L_t in bits per dimension: an unbiased estimate of the bound, less its prior term, for t uniform in 1..T.

    Args:
      variance: 'learned', or 'beta' or 'posterior', which are fixed.
      rescaled: T L_t (OpenAI's RESCALED_KL) rather than L_t alone (their KL).
    Raises:
      InputError: an unknown variance. per_example: a process without levels, or a model without learned variance.

    Ho et al. 2020, Eq. 5; Nichol and Dhariwal 2021, section 3.3.
    """
    check(variance)

    def per_example(model, x_0, eps, t):
        _check(model, variance, "vlb")
        return (model.process.T if rescaled else 1) * term_bpd(model, variance, x_0, eps, t - 1, t)

    return Loss(per_example, outputs=2 if variance == "learned" else 1, needs_uniform=True)


def cross_entropy() -> Loss:
    """-log p(y | x_t, t): a classifier of noised images.

    Dhariwal and Nichol 2021, section 4.
    """
    return Loss(
        lambda classifier, x_0, eps, t: -classifier(diffuse(classifier.process, x_0, t, eps), t), classifies=True
    )


def _squared_error(model: Model, weight: Weight, output: Data, x_0: Data, eps: Data, t: Time) -> PerExample:
    error = (target(model.process, model.prediction, x_0, eps, t) - output) ** 2
    return weight(model.process, model.prediction, t) * jnp.mean(error, axis=tuple(range(1, x_0.ndim)))


def _check(model: Model, variance: str, name: str) -> None:
    if not model.process.discrete:
        raise InputError(
            f"loss '{name}' is a sum over noise levels, of which {type(model.process).__name__} has none: "
            "use the loss weighted, or a process with a table of levels, such as VP."
        )
    check_learned(model, variance)
