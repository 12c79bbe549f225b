import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ddpm.rng import fold_in_all, normal, per_index, stream


def test_streams_differ_by_name_and_seed():
    keys = [stream(0, "train"), stream(0, "sample"), stream(1, "train")]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3
    assert stream(5, "train") == stream(5, "train")


def test_noise_of_an_example_depends_on_its_index_alone():
    def noise(indices):
        return normal(per_index(stream(0, "x"), jnp.array(indices)), (4,))

    np.testing.assert_array_equal(noise([17])[0], noise([3, 17, 99])[1])


def test_noise_is_unit_gaussian():
    keys = per_index(stream(0, "x"), jnp.arange(200))
    assert stats.kstest(np.ravel(normal(keys, (100,))), "norm").pvalue > 1e-3
    folded = normal(fold_in_all(keys, 1), (100,))
    assert abs(np.corrcoef(np.ravel(folded), np.ravel(normal(keys, (100,))))[0, 1]) < 0.03
