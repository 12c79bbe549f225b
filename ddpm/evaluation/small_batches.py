"""A feature network's batches cut to the size that is fastest."""

from collections.abc import Callable

import jax


def small_batches(apply: Callable) -> Callable:
    """`apply` of a FeatureNetwork; on CPU of one image a device at a time, whose features fit the caches.

    Inception is a third faster so. The batch is cut across what devices hold: each of them goes on with its own images.
    """

    def in_turn(params, images):
        devices = jax.device_count()
        if jax.default_backend() != "cpu" or len(images) % devices:
            return apply(params, images)
        cut = images.reshape(devices, -1, *images.shape[1:]).swapaxes(0, 1)
        outputs = jax.lax.map(lambda few: apply(params, few), cut)
        return {tap: x.swapaxes(0, 1).reshape(len(images), -1) for tap, x in outputs.items()}

    return in_turn
