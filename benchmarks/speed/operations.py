"""Operations of our training step and of an evaluation of our network, an image, as XLA counts them before it compiles for a CPU.

python operations.py NETWORK BATCH DTYPE prints them as JSON; convolutions are counted as sums.
"""

import json
import os
import sys

import jax
import jax.numpy as jnp
from ours import work


def main() -> None:
    """Counts and prints."""
    os.environ["DDPM_WINOGRAD"] = "0"
    network, batch, dtype = sys.argv[1:]
    made = work(network, int(batch), dtype)

    def one(state, given):
        return made.step(state, made.feed.draw(given, state.batch), jax.random.key(0))

    def evaluation(params, x, t):
        return made.diffusion.model(params).raw(x, t)

    def operations(function, *arguments):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    x, t = jnp.zeros((1, *made.data.facts.shape)), jnp.zeros(1, int)
    counted = {
        "train": operations(one, made.abstract, made.feed.given) / int(batch),
        "sample": operations(evaluation, made.abstract.params, x, t),
    }
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
