"""The train step: a pure function (state, batch, key) -> (state, metrics)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ddpm.condition import Condition, dropped
from ddpm.data.pipeline import Examples
from ddpm.data.pixels import to_images
from ddpm.diffusion.loss import Loss
from ddpm.diffusion.model import Model
from ddpm.diffusion.timestep import Timesteps
from ddpm.errors import InputError
from ddpm.rng import fold_in_all, normal, per_index, uniforms
from ddpm.shapes import Images, Key, Keys
from ddpm.training.global_norm import global_norm
from ddpm.training.state import State


def train_step(
    model: Callable[..., Model],
    loss: Loss,
    timesteps: Timesteps,
    tx: optax.GradientTransformation,
    ema_decay: Callable[[jax.Array], jax.Array],
    *,
    stratified: bool = False,
    with_image: Callable[[Condition, Images, Keys], Condition] = lambda condition, x_0, keys: condition,
    null: Condition | None = None,
    null_rate: float | int = 0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Callable[[State, Examples, Key], tuple[State, dict]]:
    """Makes the step: times t, eps ~ N(0, I), a gradient step on the mean loss, the EMA.

    A batch whose loss, gradient or update is not finite leaves parameters, EMA and optimizer as they were and is counted.

    Args:
      model: (params, condition, *, train, key) -> Model.
      timesteps: how t is drawn, and how it weighs.
      ema_decay: updates done -> decay of the EMA.
      stratified: draw the times of a batch evenly.
      with_image: (condition, x_0, keys) -> condition with an image made of x_0, for a model that restores images.
      null: what a model is told instead of its condition, in a share `null_rate` of the examples.
      accumulate: batches an optimizer update takes, as the optimizer was told.
      axis_name: of the devices when run under `jax.pmap`; None under `jax.jit`, where the batch is global.

    Ho et al. 2020, Algorithm 1; Ho and Salimans 2022 (classifier-free guidance), Algorithm 1.
    """

    def loss_fn(params, condition, x_0, eps, t, weight, key):
        bound = model(params, condition, train=True, key=key)
        losses = loss.per_example(bound, x_0, eps, t)
        return jnp.mean(weight * losses), (losses, bound.process.fraction(t))

    def step(state: State, batch: Examples, key: Key) -> tuple[State, dict]:
        x_0, condition = to_images(batch.pixels), batch.condition
        # Keys by place in the global batch: noise does not depend on the number of devices.
        here, devices = (jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name)) if axis_name else (0, 1)
        first = here * len(x_0)
        noise_key, dropout_key = jax.random.split(key)
        keys = per_index(noise_key, first + jnp.arange(len(x_0)))
        u = uniforms(fold_in_all(keys, 0), first, devices * len(x_0), stratified=stratified)
        t, weight = timesteps.draw(state.history, u)
        eps = normal(fold_in_all(keys, 1), x_0.shape[1:])
        dropout_key = jax.random.fold_in(dropout_key, first)
        condition = with_image(condition, x_0, fold_in_all(keys, 3))
        if null is not None:
            which = uniforms(fold_in_all(keys, 2), first, len(x_0), stratified=False) < null_rate
            condition = dropped(condition, null, which)

        (mean, (losses, fraction)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, condition, x_0, eps, t, weight, dropout_key
        )
        quarters = by_quarter(losses, fraction)
        if axis_name:
            mean, grads = jax.lax.pmean((mean, grads), axis_name)
            quarters = jax.lax.psum(quarters, axis_name)
            t, losses = jax.lax.all_gather((t, losses), axis_name, tiled=True)

        def remember(new):
            return dataclasses.replace(new, history=timesteps.update(state.history, t, losses))

        new, metrics = take(state, mean, grads, tx, ema_decay, accumulate=accumulate, then=remember)
        return new, metrics | quarters

    return step


def take(
    state: State,
    loss: jax.Array,
    grads: Any,
    tx: optax.GradientTransformation,
    ema_decay: Callable[[jax.Array], jax.Array],
    *,
    accumulate: int = 1,
    then: Callable[[State], State] = lambda new: new,
) -> tuple[State, dict]:
    """The state after a batch and its loss, norm of the gradient, and whether it was finite; what is not changes nothing.

    Args:
      ema_decay, accumulate: as for `train_step`.
      then: what else becomes of the state, if the batch is not skipped.
    """
    grad_norm = global_norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    # The update as well: an optimizer can make 0 / 0 of a gradient that is finite.
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(global_norm(updates))
    updated = (opt_state.mini_step == 0) if accumulate > 1 else True
    decay = jnp.where(updated, ema_decay(state.batch // accumulate), 1.0)

    def changed():
        params = optax.apply_updates(state.params, updates)
        ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)
        return then(dataclasses.replace(state, params=params, ema_params=ema_params, opt_state=opt_state))

    # Not `where` on each array: that doubles the time to compile.
    new = jax.lax.cond(finite, changed, lambda: state)
    new = dataclasses.replace(new, batch=state.batch + 1, skipped=jnp.where(finite, 0, state.skipped + 1))
    return new, {"loss": loss, "grad_norm": grad_norm, "finite": finite, "skipped": new.skipped}


def by_quarter(losses: jax.Array, fraction: jax.Array) -> dict[str, jax.Array]:
    """Sum of the losses and number of examples in each quarter (0, 1/4] .. (3/4, 1] of the way from data to noise, [4] each."""
    member = jnp.clip(jnp.ceil(fraction * 4), 1, 4)[None, :] - 1 == jnp.arange(4)[:, None]
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
