import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.losses import simple


def test_l_simple_is_the_mean_square_per_example():
    eps = jnp.zeros((2, 2, 2, 1))
    eps_hat = jnp.stack([jnp.ones((2, 2, 1)), jnp.array([[[3.0], [0.0]], [[0.0], [1.0]]])])
    np.testing.assert_allclose(simple(eps_hat, eps), [1.0, 2.5])
