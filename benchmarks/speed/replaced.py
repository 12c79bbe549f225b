"""What the code does in one way and has no switch for, done in another, so that switches.py can time both.

REPLACED in the environment of ours names one; with DDPM_TRACED=0, as no other source says what is replaced.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpm.models import layers


def donation() -> None:
    """A step leaves the state it is given, and makes another."""
    jit = jax.jit
    jax.jit = lambda *of, donate_argnums=None, **options: jit(*of, **options)


def norm(*, one_pass: bool = True) -> None:
    """Flax's GroupNorm: over groups at once; in one pass E[x^2] - E[x]^2."""
    options = dict(dtype=jnp.float32, use_fast_variance=one_pass)
    layers.GroupNorm = lambda groups, epsilon, name: nn.GroupNorm(groups, epsilon=epsilon, name=name, **options)


def norm_in_two_passes() -> None:
    """Flax's GroupNorm, E[(x - E[x])^2]."""
    norm(one_pass=False)


def dropout() -> None:
    """Flax's Dropout: a draw for each feature."""
    layers.Dropout = lambda rate, name: lambda x, train: nn.Dropout(rate, name=name)(x, deterministic=not train)


REPLACED = {made.__name__: made for made in (donation, norm, norm_in_two_passes, dropout)}
