"""The command with a device that computes NaN, or whose memory does.

python benchmarks/faults/nan.py '{"loss": [3, 7], "device": 1}' FLAGS: of the examples on device 1 (-1: on all) in steps 3 and 7.
python benchmarks/faults/nan.py '{"parameters": 3, "device": 1}' FLAGS: in its copy of the parameters, from step 3 on.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from ddpm import main
from ddpm.training import loop, step
from ddpm.tuning import tune


def spoil(about: dict) -> None:
    """Makes the command's training go wrong."""
    device, bad = about.get("device", -1), np.zeros((1000, jax.device_count()), bool)  # by step and device
    bad[about.get("loss", []), slice(None) if device < 0 else device] = True
    make, call, to_images, now = loop.Steps.__init__, loop.Steps.__call__, step.to_images, []

    def init(self, train_step, *arguments):
        def noted(state, batch, key):
            now.append(state.batch + 1)
            return train_step(state, batch, key)

        make(self, noted, *arguments)

    def images(pixels):
        x_0 = to_images(pixels)
        here = jnp.repeat(jnp.asarray(bad)[now[-1]], len(x_0) // jax.device_count())  # looked up: one program for all
        return jnp.where(here[:, None, None, None], jnp.nan, x_0)

    def stepped(self, state, given, batches):
        if int(state.batch) + 1 == about.get("parameters"):
            state.params.update(jax.tree.map(lambda leaf: spoilt(leaf, device), state.params))
        return call(self, state, given, batches)

    loop.Steps.__init__, loop.Steps.__call__, step.to_images = init, stepped, images


def spoilt(leaf: jax.Array, device: int) -> jax.Array:
    """The same array with NaN on one device."""
    shards = [
        jax.device_put(np.full_like(shard.data, np.nan), shard.device) if n == device else shard.data
        for n, shard in enumerate(leaf.addressable_shards)
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)


if __name__ == "__main__":
    spoil(json.loads(sys.argv.pop(1)))
    tune()
    app.run(main.main, flags_parser=main._parse_flags)
