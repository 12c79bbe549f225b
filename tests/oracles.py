"""What is true without `ddpm`: exact denoisers, posteriors and ODE solutions of Gaussian data. Imports nothing from it."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate


def betas_of(alpha_bar):
    """beta_1 .. beta_T of a table [T + 1], as an array with a dummy at index 0."""
    return np.concatenate([[0.0], 1 - alpha_bar[1:] / alpha_bar[:-1]])


def posterior_by_bayes(alpha_bar, x_0, x_t, s, t):
    """Mean and variance of q(x_s | x_t, x_0): the product of q(x_s | x_0) and q(x_t | x_s) as functions of x_s."""
    ratio = np.prod([1 - b for b in betas_of(alpha_bar)[s + 1 : t + 1]])  # abar_t / abar_s, step by step
    prior_mean, prior_var = np.sqrt(alpha_bar[s]) * x_0, 1 - alpha_bar[s]
    slope, likelihood_var = np.sqrt(ratio), 1 - ratio
    precision = 1 / prior_var + slope**2 / likelihood_var
    return (prior_mean / prior_var + slope * x_t / likelihood_var) / precision, 1 / precision


def gaussian_eps(mean, variance, alpha, sigma, x_t):
    """E[eps | x_t] of data N(mean, variance I): -sigma times the score of N(alpha mean, alpha^2 variance + sigma^2)."""
    return sigma * (x_t - alpha * mean) / (alpha**2 * variance + sigma**2)


def gaussian_ode(mean, variance, alpha_s, sigma_s, alpha_t, sigma_t, x_t):
    """Where the probability-flow ODE takes x_t at time s, for data N(mean, variance I)."""
    spread = np.sqrt((alpha_s**2 * variance + sigma_s**2) / (alpha_t**2 * variance + sigma_t**2))
    return alpha_s * mean + spread * (x_t - alpha_t * mean)


def mixture_eps(means, variances, weights, alpha, sigma, x_t):
    """E[eps | x_t] of data sum_k w_k N(m_k, v_k I): responsibilities times each Gaussian's own."""
    means, variances, weights = (jnp.asarray(a) for a in (means, variances, weights))
    v = alpha**2 * variances + sigma**2  # [k]
    residual = x_t[:, None, :] - alpha * means[None]  # [batch, k, dims]
    logits = jnp.log(weights)[None] - 0.5 * x_t.shape[-1] * jnp.log(v)[None] - 0.5 * (residual**2).sum(-1) / v[None]
    responsibility = jax.nn.softmax(logits, axis=-1)
    return sigma * (responsibility[..., None] * residual / v[None, :, None]).sum(1)


def affine_moments(step, mean, variance):
    """Mean and variance after x' = A x + B + C z, with A, B, C read off a black-box step(x, z) of scalars."""
    b = step(0.0, 0.0)
    a, c = step(1.0, 0.0) - b, step(0.0, 1.0) - b
    return a * mean + b, a**2 * variance + c**2


def mixture_ode(means, variances, weights, beta_min, beta_max, t, s, x_t):
    """Where the probability-flow ODE of the VP SDE takes x_t [batch, dims] from time t to s, by DOP853 at rtol 1e-12."""
    means, variances, weights = (np.asarray(a, np.float64) for a in (means, variances, weights))

    def rate(time, flat):
        x = flat.reshape(x_t.shape)
        beta = beta_min + (beta_max - beta_min) * time
        alpha_bar = np.exp(-(beta_min * time + (beta_max - beta_min) * time**2 / 2))
        v = alpha_bar * variances + 1 - alpha_bar
        residual = x[:, None, :] - np.sqrt(alpha_bar) * means
        logits = np.log(weights) - 0.5 * x.shape[1] * np.log(v) - 0.5 * (residual**2).sum(-1) / v
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        score = -(share[..., None] * residual / v[:, None]).sum(1)
        return (-beta / 2 * (x + score)).reshape(-1)

    found = scipy.integrate.solve_ivp(rate, (t, s), np.asarray(x_t).reshape(-1), "DOP853", rtol=1e-12, atol=1e-12)
    return found.y[:, -1].reshape(x_t.shape)
