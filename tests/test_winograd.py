"""Winograd's convolutions are the sums that define a convolution, and so are their derivatives."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm import objective
from ddpm.condition import NOTHING
from ddpm.models import winograd
from ddpm.models.layers import conv
from ddpm.models.unet import UNet

SHAPES = (
    (2, 8, 8, 3, 5),
    (1, 7, 10, 4, 2),
    (3, 3, 4, 2, 2),
    (2, 1, 1, 2, 3),
)  # batch, height, width, channels, features


def given(shape):
    batch, height, width, channels, features = shape
    x = jax.random.normal(jax.random.key(0), (batch, height, width, channels))
    return x, jax.random.normal(jax.random.key(1), (3, 3, channels, features)) / (3 * channels**0.5)


def by_tiles(x, kernel):
    return winograd.winograd.bind(x, kernel, transposed=False)


def sums(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_the_matrices_filter_six_numbers_by_three():
    AT, G, BT = winograd.matrices()
    d, g = np.random.default_rng(0).normal(size=6), np.random.default_rng(1).normal(size=3)
    np.testing.assert_allclose(AT @ ((G @ g) * (BT @ d)), np.correlate(d, g), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_convolution_is_the_sum_over_nine_pixels(shape):
    x, kernel = given(shape)
    height, width = x.shape[1:3]
    padded = np.pad(np.asarray(x, float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, i : i + height, j : j + width] @ np.asarray(kernel, float)[i, j]
        for i, j in itertools.product(range(3), range(3))
    )
    np.testing.assert_allclose(by_tiles(x, kernel), y, rtol=0, atol=5e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_sums(shape):
    x, kernel = given(shape)
    g = jax.random.normal(jax.random.key(2), (*x.shape[:3], kernel.shape[3]))
    expected = jax.vjp(sums, x, kernel)[1](g)
    for ours, theirs in zip(jax.vjp(by_tiles, x, kernel)[1](g), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5)


def test_rates_along_a_direction_are_those_of_the_sums():
    x, kernel = given(SHAPES[0])
    along = jax.tree.map(lambda a: a[..., ::-1] + 1, (x, kernel))
    for ours, theirs in zip(jax.jvp(by_tiles, (x, kernel), along), jax.jvp(sums, (x, kernel), along), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("argument", (0, 1))
def test_second_derivatives_are_those_of_the_sums(argument):
    x, kernel = given(SHAPES[1])

    def curvature(convolution):
        def loss(x, kernel):
            return jnp.sin(convolution(x, kernel)).sum()

        along = (x, kernel)[argument]
        slope = jax.grad(lambda *both: jnp.vdot(jax.grad(loss, argument)(*both), along), (0, 1))
        return slope(x, kernel)

    for ours, theirs in zip(curvature(by_tiles), curvature(sums), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", ((1, None), (None, 3), (0, 2)))
def test_many_at_once_are_each_by_itself(axes):
    x, kernel = given(SHAPES[0])
    many = [
        each if axis is None else jnp.stack([each, 2 * each, each - 1], axis)
        for each, axis in zip((x, kernel), axes, strict=True)
    ]

    def backward(x, kernel):
        return jax.vjp(by_tiles, x, kernel)[1](jnp.ones((*x.shape[:3], kernel.shape[3])))

    for function, exact in (
        (by_tiles, sums),
        (backward, lambda *both: jax.vjp(sums, *both)[1](jnp.ones((2, 8, 8, 5)))),
    ):
        for ours, theirs in zip(
            jax.tree.leaves(jax.vmap(function, axes)(*many)), jax.tree.leaves(jax.vmap(exact, axes)(*many)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)


def test_rounding_is_near_that_of_the_sums():
    x, kernel = given((2, 16, 16, 256, 64))
    with jax.enable_x64(True):
        exact = np.asarray(sums(jnp.asarray(x, float), jnp.asarray(kernel, float)))

    def relative(y):
        return np.sqrt(np.mean((np.asarray(y, float) - exact) ** 2) / np.mean(exact**2))

    assert relative(by_tiles(x, kernel)) < 2e-6


def by(layer, x):
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
    return "winograd" in str(jax.make_jaxpr(layer.apply)(params, x))


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def test_a_layer_goes_by_tiles_where_that_is_faster(one_device, monkeypatch):
    image = jnp.zeros((16, 16, 16, 128))
    assert by(conv(128, name="layer"), image)
    assert by(conv(128, padding=1, name="layer"), image)
    assert by(conv(64, name="layer"), image[..., :64])
    assert not by(conv(64, name="layer"), image[1:, ..., :64])
    assert not by(conv(63, name="layer"), jnp.zeros((32, 16, 16, 128)))
    assert not by(conv(128, stride=2, name="layer"), image)
    assert not by(conv(128, kernel=1, name="layer"), image)
    assert not by(conv(128, dtype=jnp.bfloat16, name="layer"), image)
    assert not by(conv(128, name="layer"), image[:1])
    monkeypatch.setenv("DDPM_WINOGRAD", "0")
    assert not by(conv(128, name="layer"), image)
    monkeypatch.delenv("DDPM_WINOGRAD")
    monkeypatch.setattr(jax, "device_count", lambda: 2)  # which would exchange 36 numbers of a gradient for 9
    assert not by(conv(128, name="layer"), image)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not by(conv(128, name="layer"), image)


@pytest.mark.parametrize("remat", [False, True])
def test_a_network_that_draws_goes_by_tiles_where_one_that_trains_does_not(one_device, tiny, remat):
    image = jnp.zeros((1, 16, 16, 32))
    with winograd.kernels_fixed(True):
        assert by(conv(32, name="layer"), image)
        assert not by(conv(31, name="layer"), image)
        assert not by(conv(32, name="layer"), image[:, 1:])
    tiny.model.unet.update(channels=32, remat=remat)
    net = objective.network(tiny, (16, 16, 1), 1)
    params, x = jax.eval_shape(net.init, jax.random.key(0)), jnp.zeros((1, 16, 16, 1))
    for train in (True, False, True):  # and not what was traced before
        options = dict(train=True, key=jax.random.key(0)) if train else {}
        traced = jax.make_jaxpr(lambda params, options=options: net.apply(params, x, jnp.ones(1), NOTHING, **options))
        assert ("winograd" in str(traced(params))) is not train


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"padding": 2},
        {"padding": "VALID"},
        {"padding": "CIRCULAR"},
        {"strides": 2},
        {"kernel_dilation": 2},
        {"input_dilation": 2, "padding": ((1, 1), (1, 1))},
        {"feature_group_count": 2},
        {"precision": "highest"},
    ),
)
def test_what_tiles_cannot_do_is_left_to_sums(one_device, options):
    x = jax.random.normal(jax.random.key(0), (8, 16, 16, 128))
    ours, theirs = (nn.Conv(128, (3, 3), conv_general_dilated=how, **options) for how in (winograd.convolve, None))
    params = theirs.init(jax.random.key(1), x)
    assert by(ours, x) == (options == {})
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), rtol=0, atol=2e-5)


def test_images_whose_channels_come_first_are_left_to_sums(one_device):
    x, kernel = jnp.ones((8, 64, 64, 64)), jnp.ones((3, 3, 64, 64))
    first = ("NCHW", "HWIO", "NCHW")
    ours = jax.make_jaxpr(lambda *both: winograd.convolve(*both, (1, 1), "SAME", dimension_numbers=first))(x, kernel)
    assert "winograd" not in str(ours)


def test_any_number_of_images_can_be_exported(one_device):
    (batch,) = jax.export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, 16, 16, 128), jnp.float32)
    layer = conv(128, name="layer")
    params = layer.init(jax.random.key(0), jnp.zeros((1, 16, 16, 128)))
    program = jax.export.export(jax.jit(lambda x: layer.apply(params, x)))(image)
    assert program.call(jnp.zeros((3, 16, 16, 128))).shape == (3, 16, 16, 128)


def test_a_network_learns_the_same_by_tiles_and_by_sums(one_device, monkeypatch):
    network = UNet(3, channels=64, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), norm_groups=8)
    x, t = jax.random.normal(jax.random.key(0), (16, 16, 16, 3)), jnp.arange(16)
    params = jax.tree.map(
        lambda leaf: (
            leaf + 0.02 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
        ),  # of zeros nothing is learnt
        network.init(jax.random.key(1), x, t),
    )

    def gradient(params):
        return jax.grad(lambda params: jnp.square(network.apply(params, x, t)).mean())(params)

    assert "winograd" in str(jax.make_jaxpr(gradient)(params))
    tiles = jax.jit(gradient)(params)
    monkeypatch.setenv("DDPM_WINOGRAD", "0")
    jax.clear_caches()
    sums = jax.jit(gradient)(params)
    for ours, theirs in zip(jax.tree.leaves(tiles), jax.tree.leaves(sums), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max() + 1e-7)
    assert any((ours != theirs).any() for ours, theirs in zip(*map(jax.tree.leaves, (tiles, sums)), strict=True))
