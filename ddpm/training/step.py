"""The train step: a pure function (state, batch, key) -> (state, metrics)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ddpm.data.pixels import to_images
from ddpm.diffusion.losses import simple
from ddpm.diffusion.process import Process, diffuse
from ddpm.diffusion.timesteps import uniform
from ddpm.errors import InputError
from ddpm.rng import fold_in_all, normal, per_index
from ddpm.shapes import Key, Pixels
from ddpm.training.state import State


def train_step(
    process: Process,
    network: Callable,
    tx: optax.GradientTransformation,
    ema_decay: Callable[[jax.Array], jax.Array],
    *,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Callable[[State, Pixels, Key], tuple[State, dict]]:
    """Makes the step: t ~ U{1..T}, eps ~ N(0, I), a gradient step on L_simple, the EMA.

    A batch whose loss, gradient or update is not finite leaves parameters, EMA and optimizer as they were and is counted.

    Args:
      network: (params, x_t, t, *, train, key) -> eps_hat.
      ema_decay: updates done -> decay of the EMA.
      accumulate: batches an optimizer update takes, as the optimizer was told.
      axis_name: of the devices when run under `jax.pmap`; None under `jax.jit`, where the batch is global.

    Ho et al. 2020, Algorithm 1.
    """

    def loss_fn(params, x_0, t, eps, key):
        eps_hat = network(params, diffuse(process, x_0, t, eps), t, train=True, key=key)
        losses = simple(eps_hat, eps)
        return losses.mean(), losses

    def step(state: State, batch: Pixels, key: Key) -> tuple[State, dict]:
        x_0 = to_images(batch)
        # Keys by place in the global batch: noise does not depend on the number of devices.
        first = jax.lax.axis_index(axis_name) * len(x_0) if axis_name else 0
        noise_key, dropout_key = jax.random.split(key)
        keys = per_index(noise_key, first + jnp.arange(len(x_0)))
        t = uniform(fold_in_all(keys, 0), process.T)
        eps = normal(fold_in_all(keys, 1), x_0.shape[1:])
        dropout_key = jax.random.fold_in(dropout_key, first)

        (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, x_0, t, eps, dropout_key)
        quarters = by_quarter(losses, t, process.T)
        if axis_name:
            loss, grads = jax.lax.pmean((loss, grads), axis_name)
            quarters = jax.lax.psum(quarters, axis_name)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        # The update as well: an optimizer can make 0 / 0 of a gradient that is finite.
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(optax.tree.norm(updates))
        updated = (opt_state.mini_step == 0) if accumulate > 1 else True
        decay = jnp.where(updated, ema_decay(state.batch // accumulate), 1.0)

        def take():
            params = optax.apply_updates(state.params, updates)
            return params, optax.incremental_update(params, state.ema_params, 1 - decay), opt_state

        # Not `where` on each array: that doubles the time to compile.
        params, ema_params, opt_state = jax.lax.cond(
            finite, take, lambda: (state.params, state.ema_params, state.opt_state)
        )
        skipped = jnp.where(finite, 0, state.skipped + 1)
        metrics = {"loss": loss, "grad_norm": grad_norm, "finite": finite, "skipped": skipped, **quarters}
        return State(state.batch + 1, params, ema_params, opt_state, skipped), metrics

    return step


def by_quarter(losses: jax.Array, t: jax.Array, T: int) -> dict[str, jax.Array]:
    """Sum of the losses and number of examples with t in each quarter of 1..T, [4] each."""
    member = (t[None, :] - 1) * 4 // T == jnp.arange(4)[:, None]
    return {"quarter_loss": (member * losses[None, :]).sum(axis=1), "quarter_count": member.sum(axis=1)}


def ema_decay(decay: float, warmup: bool) -> Callable[[jax.Array], jax.Array]:
    """Decay of the EMA by the number of updates done: `decay`, or with warm-up min(decay, (1 + n) / (10 + n)).

    The warm-up forgets the initial parameters early, so that short runs have a usable average.

    Raises:
      InputError: a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"ema.decay = {decay} is not in [0, 1); DDPM uses 0.9999.")
    return lambda n: jnp.minimum(decay, (1 + n) / (10 + n)) if warmup else jnp.asarray(decay)
