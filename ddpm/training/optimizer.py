"""The optimizer, all optax: clipping, warm-up, the method, accumulation."""

from collections.abc import Callable, Sequence

import optax

from ddpm.errors import InputError
from ddpm.training.global_norm import clip_by_global_norm


def optimizer(
    method: Callable[..., optax.GradientTransformation],
    *,
    learning_rate: float,
    warmup_steps: int,
    clip_norm: float,
    accumulate: int,
    parts: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Clips by global norm, warms the learning rate up linearly from 0, applies `method`, every `accumulate` batches.

    Args:
      method: learning rate -> gradient transformation, such as optax.adam.
      learning_rate: after warm-up, positive.
      warmup_steps: updates over which the learning rate grows; 0 for none.
      clip_norm: largest global norm of the gradient, positive; 'inf' for none.
      accumulate: batches whose gradients are averaged into one update, at least 1.
      parts: keys of the parameters that are updated as if each were alone, the others never; () for all as one.
    Raises:
      InputError: a value outside its range.
    """
    for name, value, low in (
        ("learning_rate", learning_rate, 0),
        ("clip_norm", clip_norm, 0),
        ("accumulate", accumulate, 0.5),
    ):
        if not value > low:
            raise InputError(f"{name} = {value} must be {'at least 1' if low else 'positive'}.")
    if warmup_steps < 0:
        raise InputError(f"warmup_steps = {warmup_steps} is negative; 0 means no warm-up.")
    # A schedule without warm-up too: the same state, so that a run may change its mind.
    rate = optax.linear_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else lambda count: learning_rate
    tx = optax.chain(clip_by_global_norm(clip_norm), method(rate))
    if parts:
        each = {part: tx for part in parts} | {"": optax.set_to_zero()}
        tx = optax.partition(each, lambda params: {key: key if key in parts else "" for key in params})
    return optax.MultiSteps(tx, accumulate).gradient_transformation() if accumulate > 1 else tx
