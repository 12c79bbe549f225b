"""What a run has to remember."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The training state: everything a checkpoint holds. No random key: keys are functions of seed and batch number.

    batch: int32, batches seen, skipped ones included (an optimizer update takes `accumulate` batches).
    params, ema_params: parameters and their exponential moving average, which sampling and evaluation use.
    opt_state: of optax.
    skipped: int32, batches skipped in a row, up to now, because their loss or gradient was not finite.
    history: what the draws of t remember of losses; () where they remember nothing.
    """

    batch: Any
    params: Any
    ema_params: Any
    opt_state: Any
    skipped: Any
    history: Any = ()


def init_state(params: Any, tx: optax.GradientTransformation, history: Any = ()) -> State:
    """The state before the first batch; ema_params start as a copy of params."""
    batch, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # one buffer each: the state is donated
    return State(batch, params, jax.tree.map(jnp.copy, params), tx.init(params), skipped, history)
