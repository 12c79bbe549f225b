"""The norm and the clipping of optax, by fewer reductions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm.training.global_norm import SMALL, clip_by_global_norm, global_norm


def tree(scale=1.0):
    draw = np.random.default_rng(0).standard_normal
    shapes = {"kernel": (SMALL, 2), "bias": (3,), "at": {"gain": (7, 5), "one": (), "edge": (SMALL,)}}
    leaf = lambda shape: jnp.asarray(scale * draw(shape), jnp.float32)  # noqa: E731
    return jax.tree.map(leaf, shapes, is_leaf=lambda shape: isinstance(shape, tuple))


@pytest.mark.parametrize("only", ["all", "kernel", "bias"])
def test_the_norm_is_that_of_all_elements(only):
    given = tree() if only == "all" else {only: tree()[only]}
    everything = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(given)])
    np.testing.assert_allclose(global_norm(given), np.linalg.norm(everything), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("max_norm", [1.0, 30.0, float("inf")])
def test_it_clips_as_optax_does(scale, max_norm):
    given, ours, theirs = tree(scale), clip_by_global_norm(max_norm), optax.clip_by_global_norm(max_norm)
    state = ours.init(given)
    assert state == theirs.init(given)
    clipped, expected = (tx.update(given, state)[0] for tx in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), clipped, expected)


def test_a_gradient_of_zeros_stays():
    zeros = jax.tree.map(jnp.zeros_like, tree())
    clipped, _ = clip_by_global_norm(1.0).update(zeros, optax.EmptyState())
    assert not any(leaf.any() for leaf in jax.tree.leaves(clipped))


def test_small_arrays_take_one_reduction():
    small = {str(i): jnp.ones(8) for i in range(20)}
    reductions = [eqn for eqn in jax.make_jaxpr(global_norm)(small).eqns if eqn.primitive.name == "reduce_sum"]
    assert len(reductions) == 1
