"""Attention with its gradient: in sums, and `jax.nn.dot_product_attention` as XLA and as cuDNN compute it; each in turns.

python benchmarks/attention.py [--dtype bfloat16]
Prints milliseconds of each, the median, at the sizes of the attention of CIFAR-10's and ImageNet 64's U-Nets and of DiT-XL/2,
or what keeps cuDNN from it.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from ddpm.models.dot_product import in_sums

SIZES = {  # images, tokens, heads, features of a head
    "cifar10, batch 512": (512, 256, 1, 256),
    "imagenet64 at 16 x 16, batch 64": (64, 256, 9, 64),
    "imagenet64 at 8 x 8, batch 64": (64, 64, 12, 64),
    "DiT-XL/2, batch 64": (64, 256, 16, 72),
}
ROUNDS, CALLS = 5, 10  # of each, so many calls a round


def fused(implementation: str):
    """Attention as `in_sums` returns it."""

    def attention(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation).reshape(*q.shape[:2], -1)

    return attention


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {arguments.dtype}")
    for name, size in SIZES.items():
        given = [jax.random.normal(jax.random.key(i), size, arguments.dtype) for i in range(3)]
        turns = {}
        for who, attention in {"in sums": in_sums, "xla": fused("xla"), "cudnn": fused("cudnn")}.items():
            gradient = jax.jit(
                jax.grad(lambda q, k, v, of=attention: jnp.square(of(q, k, v)).mean(), argnums=(0, 1, 2))
            )
            try:
                jax.block_until_ready(gradient(*given))
            except Exception as error:  # of many kinds, by what the machine lacks
                print(f"{name}: {who} cannot: {str(error)[:100]!r}")
                continue
            turns[who] = gradient, []
        for _ in range(ROUNDS):
            for gradient, took in turns.values():
                began = time.perf_counter()
                for _ in range(CALLS):
                    done = gradient(*given)
                jax.block_until_ready(done)
                took.append(1e3 * (time.perf_counter() - began) / CALLS)
        print(f"{name}: {', '.join(f'{who} {statistics.median(took):.3g} ms' for who, (_, took) in turns.items())}")


if __name__ == "__main__":
    main()
