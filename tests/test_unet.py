import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from ddpm.errors import InputError
from ddpm.models.layers import SelfAttention, group_norm, to_patches, to_pixels
from ddpm.models.told import sinusoidal
from ddpm.models.unet import UNet

SMALL = dict(channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,), dropout=0.0)


def shapes(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.ones((1,), jnp.int32))["params"]


def count(model, shape):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, shape)))


def random_params(model, shape):
    """Values of 0.1 or so everywhere: the zero-initialised layers would hide what is before them."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape, scale=0.1), jnp.float32), shapes(model, shape))


def output(model, params, x, t, **kwargs):
    return jax.jit(lambda params, x, t: model.apply({"params": params}, x, t, **kwargs))(params, x, t)


def image(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def test_the_papers_cifar_network_has_its_number_of_parameters():
    assert count(UNet(3), (32, 32, 3)) == 35_746_307


def test_sinusoidal_is_sines_then_cosines_of_geometric_frequencies():
    t, half = 37.0, 4
    frequencies = [10_000 ** (-i / (half - 1)) for i in range(half)]
    expected = [np.sin(t * w) for w in frequencies] + [np.cos(t * w) for w in frequencies]
    np.testing.assert_allclose(sinusoidal(jnp.array([t]), 8)[0], expected, atol=1e-5)


def test_a_fresh_network_predicts_zero():
    model = UNet(2, **SMALL)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 2)), jnp.ones((1,), jnp.int32))["params"]
    np.testing.assert_array_equal(output(model, params, image(1, 8, 8, 2), jnp.array([5])), np.zeros((1, 8, 8, 2)))


@pytest.mark.parametrize("scale_shift", [False, True])
def test_the_time_changes_the_output_of_its_example_alone(scale_shift):
    model = UNet(1, **SMALL, scale_shift=scale_shift)
    params, x = random_params(model, (8, 8, 1)), image(2, 8, 8, 1)
    a, b = (output(model, params, x, jnp.array(t)) for t in ([5, 5], [5, 900]))
    np.testing.assert_allclose(a[0], b[0], atol=1e-6)
    assert np.abs(a[1] - b[1]).max() > 1e-3


def test_the_time_enters_every_residual_block():
    paths = {
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes(UNet(3), (32, 32, 3)))
    }
    blocks = {path.split("'")[1] for path in paths if "conv_1" in path}
    assert len(blocks) == 4 * 2 + 2 + 4 * 3
    assert all(f"['{block}']['time']['kernel']" in paths for block in blocks)


def test_attention_is_where_it_is_asked():
    names = shapes(UNet(3, attention_resolutions=(16, 4)), (32, 32, 3))
    attended = {name.removesuffix("_attention") for name in names if name.endswith("_attention")}
    at_16, at_4 = ({f"{way}_{level}_{i}" for way, n in (("down", 2), ("up", 3)) for i in range(n)} for level in (1, 3))
    assert attended == at_16 | at_4 | {"mid"}


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # which of two ways to compute it
@pytest.mark.parametrize("num_heads", [1, 2])
def test_attention_is_softmax_of_q_k_times_v(num_heads, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    of_jax, taken = jax.nn.dot_product_attention, []
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, **k: taken.append(k) or of_jax(*a, **k))
    layer, x = SelfAttention(num_heads, jnp.dtype("float32")), image(2, 2, 3, 8)
    params = jax.tree.map(lambda p: image(*p.shape), layer.init(jax.random.key(0), x))["params"]
    params = jax.tree.map(np.asarray, params)
    h = np.asarray(x, np.float64).reshape(2, 6, 2, 4)  # 8 channels are 2 groups
    h = (h - h.mean(axis=(1, 3), keepdims=True)) / np.sqrt(h.var(axis=(1, 3), keepdims=True) + 1e-6)
    h = h.reshape(2, 6, 8) * params["norm"]["scale"] + params["norm"]["bias"]
    q, k, v = (
        (h @ params[n]["kernel"] + params[n]["bias"]).reshape(2, 6, num_heads, -1) for n in ("query", "key", "value")
    )
    weights = scipy.special.softmax(np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(8 / num_heads), axis=-1)
    h = np.einsum("bhij,bjhd->bihd", weights, v).reshape(2, 6, 8) @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(
        layer.apply({"params": params}, x), np.asarray(x) + h.reshape(x.shape), rtol=1e-4, atol=1e-4
    )
    assert all(options == {"implementation": "xla"} for options in taken) and bool(taken) == (backend == "gpu")


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (192, 32), (96, 24), (24, 6), (8, 2), (3, 1)])
def test_groups_have_at_least_four_channels(channels, groups):
    assert group_norm(channels, name="norm").num_groups == groups


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 20, 3), (2, 6, 4)])
def test_any_divisible_size_and_channel_count(shape):
    model = UNet(shape[-1], 12, (1, 2), 1, (), dropout=0.0)
    assert output(model, random_params(model, shape), image(2, *shape), jnp.array([1, 9])).shape == (2, *shape)


def test_bfloat16_keeps_float32_parameters_and_comes_near():
    full, half = (UNet(1, **SMALL, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(half, (8, 8, 1)))} == {jnp.dtype("float32")}
    params, x, t = random_params(full, (8, 8, 1)), image(2, 8, 8, 1), jnp.array([1, 9])
    a, b = output(full, params, x, t), output(half, params, x, t)
    assert b.dtype == jnp.float32 and (a != b).any()
    np.testing.assert_allclose(a, b, atol=0.05 * np.abs(a).max())


def test_norms_are_float32_also_at_a_large_mean():
    model = UNet(1, **SMALL)
    params, t = random_params(model, (8, 8, 1)), jnp.array([5])
    params["conv_in"]["bias"] = params["conv_in"]["bias"] + 300.0  # one-pass variance fails here
    x = image(1, 8, 8, 1)
    with jax.enable_x64(True):
        double = UNet(1, **SMALL, dtype="float64")
        exact = output(double, jax.tree.map(lambda p: p.astype(jnp.float64), params), x.astype(jnp.float64), t)
    np.testing.assert_allclose(output(model, params, x, t), exact, atol=2e-3 * np.abs(exact).max())


def test_remat_changes_neither_output_nor_gradient():
    x, t = image(2, 8, 8, 1), jnp.array([1, 9])
    plain, remat = (UNet(1, **SMALL, remat=remat) for remat in (False, True))
    params = random_params(plain, (8, 8, 1))

    def gradient(model):
        def loss(params):
            rngs = {"dropout": jax.random.key(0)}
            return (model.apply({"params": params}, x, t, train=True, rngs=rngs) ** 2).mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    for a, b in zip(jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(remat)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 + 1e-4 * np.abs(a).max())


def test_dropout_acts_in_training_alone():
    model = UNet(1, **SMALL | dict(dropout=0.5))
    params, x, t = random_params(model, (8, 8, 1)), image(1, 8, 8, 1), jnp.array([5])
    a, b = (output(model, params, x, t, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(output(model, params, x, t), output(model, params, x, t))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (28, 30, 1),
            dict(attention_resolutions=()),
            "image height 28 is not divisible by 8 = 2^3, as the 4 levels of channel_mult = (1, 2, 2, 2) need. "
            "Resize the images or use fewer levels.",
        ),
        (
            (32, 36, 1),
            {},
            "image width 36 is not divisible by 8 = 2^3, as the 4 levels of channel_mult = (1, 2, 2, 2) need. "
            "Resize the images or use fewer levels.",
        ),
        (
            (64, 64, 1),
            dict(attention_resolutions=(16, 10)),
            "attention_resolutions = (16, 10): no level has height 10. "
            "The levels of a 64 x 64 image have heights 64, 32, 16, 8.",
        ),
    ],
)
def test_a_size_that_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(InputError) as caught:
        shapes(UNet(1, **options), shape)
    assert str(caught.value) == message


def test_pixels_that_become_features_come_back_in_their_place():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(patches[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(to_pixels(patches, 2), x)


def test_a_network_of_patches_is_of_images_and_smaller_inside():
    model = UNet(1, patch=2, channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
    x, t = jnp.ones((1, 8, 12, 1)), jnp.ones(1)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
    assert params["conv_in"]["kernel"].shape == (3, 3, 4, 8) and params["conv_out"]["kernel"].shape == (3, 3, 8, 4)
    assert jax.eval_shape(model.apply, {"params": params}, x, t).shape == x.shape
    with pytest.raises(InputError, match=r"^model.unet.patch = 3 does not divide an image of 8 x 12: use 1, 2 or 4\."):
        jax.eval_shape(UNet(1, patch=3).init, jax.random.key(0), x, t)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(freq_shift=2), "model.unet.freq_shift = 2 must be 0 or 1."),
        (dict(downsample_padding=-1), "model.unet.downsample_padding = -1 must be 0 or 1."),
        (dict(head_channels=-8), "model.unet.head_channels = -8 must be at least 0."),
        (dict(norm_groups=3), "norm_groups = 3 does not divide 8 channels: use 0, or a number that does."),
        (
            dict(head_channels=3),
            "head_channels = 3 does not divide the 16 channels that attention sees: use one that does.",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError) as caught:
        shapes(UNet(1, **SMALL, **options), (8, 8, 1))
    assert str(caught.value) == message


def test_group_norm_is_flaxs():
    x = 3 + jax.random.normal(jax.random.key(0), (2, 5, 7, 12)) * jnp.arange(1, 13.0)[None, None, None]
    params = {"scale": jnp.linspace(0.5, 2, 12), "bias": jnp.linspace(-1, 1, 12)}
    ours = group_norm(12, name="norm").apply({"params": params}, x)
    theirs = nn.GroupNorm(3, epsilon=1e-6, use_fast_variance=False).apply({"params": params}, x)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
