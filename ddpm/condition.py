"""What a network is told of a sample beside x_t and t: its class, a text, an image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ddpm.errors import InputError


class Condition(NamedTuple):
    """What a network is told of each sample; None where it is told nothing of the kind.

    labels: classes, integers from 0.
    text: features of the tokens of a prompt.
    mask: which of the tokens there are.
    image: channels that join those of x_t, in [-1, 1].
    noise: how noisy `image` was made, in [0, 1].
    """

    labels: Int[Array, "batch"] | np.ndarray | None = None
    text: Float[Array, "batch tokens features"] | np.ndarray | None = None
    mask: Bool[Array, "batch tokens"] | np.ndarray | None = None
    image: Float[Array, "batch height width more"] | np.ndarray | None = None
    noise: Float[Array, "batch"] | np.ndarray | None = None


NOTHING = Condition()


def same_for_all(null: Condition, batch: int) -> Condition:
    """The condition of one sample, without the batch dimension, for each of a batch."""
    return jax.tree.map(lambda row: jnp.broadcast_to(row, (batch, *jnp.shape(row))), null)


def only(condition: Condition, some: Condition) -> Condition:
    """What of a condition is of the kinds of `some`: guides are told all that is asked, and each hears its own.

    Raises:
      InputError: something of that kind is missing.
    """
    for name, rows, like in zip(Condition._fields, condition, some, strict=True):
        if rows is None and like is not None:
            raise InputError(
                f"this model is told {name} of each image, and is given none: give them, or no condition at all."
            )
    return Condition(*(None if like is None else rows for rows, like in zip(condition, some, strict=True)))


def with_null(condition: Condition, null: Condition) -> Condition:
    """Each row and after it the null condition: neighbours, so that a sample stays on its device.

    null: of one sample, without the batch dimension; what is None in it is the same in both, as the image is.
    """

    def both(rows, none):
        if rows is None:
            return None
        none = rows if none is None else jnp.broadcast_to(jnp.asarray(none, rows.dtype), rows.shape)
        return jnp.stack([rows, none], axis=1).reshape(-1, *rows.shape[1:])

    return Condition(*map(both, condition, null))


def dropped(condition: Condition, null: Condition, which: Bool[Array, "batch"]) -> Condition:
    """The null condition where `which` says so; what is None in it stays."""

    def kept(rows, none):
        if rows is None or none is None:
            return rows
        return jnp.where(which.reshape(-1, *[1] * (rows.ndim - 1)), jnp.asarray(none, rows.dtype), rows)

    return Condition(*map(kept, condition, null))
