"""What the U-Net is told beside the time: a text by cross-attention, an image, its noise; and the time as a token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError
from ddpm.models.attention import SpatialTransformer
from ddpm.models.layers import CrossAttention, SelfAttention
from ddpm.models.unet import UNet

SMALL = dict(channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,), dropout=0.0)
TEXT = 12  # features of a token
F32 = jnp.dtype("float32")
LAYERS = [CrossAttention, SpatialTransformer]
KINDS = [dict(), dict(attention="transformer"), dict(time="token"), dict(attention="transformer", time="token")]
NAMES = ["simple", "transformer", "simple_token", "transformer_token"]


def drawn(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def random_like(template):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape, scale=0.3), jnp.float32), template)


def unet(condition, **options):
    """A small U-Net and random parameters."""
    model = UNet(1, **SMALL | options)
    told = (drawn(2, 8, 8, 1), jnp.array([5, 700]), condition)
    return model, random_like(jax.eval_shape(model.init, jax.random.key(0), *told)["params"])


@functools.cache
def compiled(module):
    return jax.jit(module.apply)


def output(model, params, condition, t=(5, 700)):
    return compiled(model)({"params": params}, drawn(2, 8, 8, 1), jnp.array(t), condition)


def text(*, seed=2, mask=None, features=TEXT, **more):
    return Condition(text=drawn(2, 5, features, seed=seed), mask=mask, **more)


def layer_and_params(kind, *given):
    """Compiled, (params, *given, mask=None) -> x; and random parameters."""
    layer = kind(2, F32)
    params = random_like(jax.eval_shape(layer.init, jax.random.key(0), *given)["params"])
    return lambda params, *given: compiled(layer)({"params": params}, *given), params


def test_cross_attention_is_softmax_of_q_k_times_v_of_normed_tokens():
    x, tokens = drawn(2, 2, 3, 8), drawn(2, 5, TEXT, seed=2)
    layer, params = layer_and_params(CrossAttention, x, tokens)
    mask = np.array([[True] * 5, [True, False, True, False, False]])
    given = jax.tree.map(np.asarray, params)
    h = np.asarray(x, np.float64).reshape(2, 6, 2, 4)  # 8 channels are 2 groups
    h = (h - h.mean(axis=(1, 3), keepdims=True)) / np.sqrt(h.var(axis=(1, 3), keepdims=True) + 1e-6)
    h = h.reshape(2, 6, 8) * given["norm"]["scale"] + given["norm"]["bias"]
    k = np.asarray(tokens, np.float64)
    k = (k - k.mean(axis=2, keepdims=True)) / np.sqrt(k.var(axis=2, keepdims=True) + 1e-5)
    k = k * given["norm_tokens"]["scale"] + given["norm_tokens"]["bias"]
    q, k, v = (
        (of @ given[name]["kernel"] + given[name]["bias"]).reshape(2, -1, 2, 4)
        for name, of in (("query", h), ("key", k), ("value", k))
    )
    scores = np.where(mask[:, None, None, :], np.einsum("bihd,bjhd->bhij", q, k) / 2, -np.inf)
    h = np.einsum("bhij,bjhd->bihd", scipy.special.softmax(scores, axis=-1), v).reshape(x.shape)
    expected = np.asarray(x) + h @ given["out"]["kernel"] + given["out"]["bias"]
    np.testing.assert_allclose(layer(params, x, tokens, jnp.asarray(mask)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_masked_token_is_as_one_that_is_not_there_and_their_order_is_not_seen(kind):
    x, tokens = drawn(2, 2, 4, 8), drawn(2, 5, TEXT, seed=2)
    layer, params = layer_and_params(kind, x, tokens)
    mask = jnp.array([[True, False, True, True, False]] * 2)
    masked = layer(params, x, tokens, mask)
    without = layer(params, x, tokens[:, jnp.array([3, 0, 2])])
    np.testing.assert_allclose(masked, without, atol=1e-5)
    assert np.abs(masked - layer(params, x, tokens)).max() > 1e-3


@pytest.mark.parametrize("kind", LAYERS)
def test_where_all_tokens_are_masked_nothing_of_them_is_read_and_nothing_is_nan(kind):
    x, tokens, more = drawn(2, 2, 4, 8), drawn(2, 5, TEXT, seed=2), drawn(2, 5, TEXT, seed=3)
    layer, params = layer_and_params(kind, x, tokens)
    mask = jnp.array([[False] * 5, [True] * 5])

    def of(params, tokens):
        return layer(params, x, tokens, mask)

    a, b = of(params, tokens), of(params, more)
    np.testing.assert_array_equal(a[0], b[0])
    assert np.isfinite(a).all() and np.abs(a[1] - b[1]).max() > 1e-3
    gradients = jax.jit(jax.grad(lambda *args: (of(*args) ** 2).sum(), argnums=(0, 1)))(params, tokens)
    for gradient in jax.tree.leaves(gradients):
        assert np.isfinite(gradient).all()
    if kind is CrossAttention:
        np.testing.assert_allclose(a[0], x[0] + params["out"]["bias"][None, None], atol=1e-6)


@pytest.mark.parametrize("kind", [SelfAttention, *LAYERS])
def test_pixels_that_change_places_take_what_they_read_with_them(kind):
    x = drawn(1, 2, 4, 8)
    given = () if kind is SelfAttention else (drawn(1, 5, TEXT, seed=2),)
    layer, params = layer_and_params(kind, x, *given)
    order = np.random.default_rng(0).permutation(8)
    mixed = x.reshape(1, 8, 8)[:, order].reshape(x.shape)
    a, b = (layer(params, h, *given).reshape(1, 8, 8) for h in (x, mixed))
    np.testing.assert_allclose(a[:, order], b, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_fresh_layer_adds_nothing(kind):
    x, tokens = drawn(2, 2, 4, 8), drawn(2, 5, TEXT, seed=2)
    layer = kind(2, F32)
    params = jax.jit(layer.init)(jax.random.key(0), x, tokens)
    np.testing.assert_array_equal(compiled(layer)(params, x, tokens), x)


def test_norms_and_softmax_of_bfloat16_are_float32():
    x, tokens = 1000 + drawn(2, 2, 4, 8), 1000 + drawn(2, 5, TEXT, seed=2)  # of which bfloat16 sees no difference
    layer, params = layer_and_params(CrossAttention, x, tokens)
    half = compiled(CrossAttention(2, jnp.dtype("bfloat16")))
    a, b = layer(params, x, tokens) - x, half({"params": params}, x, tokens) - x
    assert (a != b).any()
    np.testing.assert_allclose(a, b, atol=0.05 * np.abs(a).max())


@pytest.mark.parametrize("options", KINDS, ids=NAMES)
def test_all_that_is_told_changes_the_output_of_its_example_alone(options):
    given = text(labels=jnp.array([0, 1]), image=drawn(2, 8, 8, 2, seed=4), noise=jnp.array([0.1, 0.1]))
    model, params = unet(given, num_labels=3, **options)
    mask = jnp.array([[True] * 5, [True, True, False, False, False]])
    before = output(model, params, given)
    changed = dict(
        labels=given._replace(labels=jnp.array([0, 2])),
        text=given._replace(text=given.text.at[1].add(drawn(5, TEXT, seed=5))),
        mask=given._replace(mask=mask),
        image=given._replace(image=given.image.at[1].add(1)),
        noise=given._replace(noise=jnp.array([0.1, 0.7])),
        t=given,
    )
    for name, condition in changed.items():
        after = output(model, params, condition, t=(5, 30) if name == "t" else (5, 700))
        np.testing.assert_allclose(before[0], after[0], atol=1e-5, err_msg=name)
        assert np.abs(before[1] - after[1]).max() > 1e-4, name


def test_the_text_is_heard_wherever_there_is_attention():
    model, params = unet(text())
    crossed = {name.removesuffix("_cross") for name in params if name.endswith("_cross")}
    attended = {name.removesuffix("_attention") for name in params if name.endswith("_attention")}
    assert crossed == attended == {"down_1_0", "mid", "up_1_0", "up_1_1"}
    _, params = unet(text(), attention="transformer")
    assert {name for name in params if "cross_query" in params[name]} == {f"{name}_attention" for name in attended}


def test_a_network_that_is_told_nothing_more_has_no_more_parameters():
    _, params = unet(NOTHING)
    of_attention = {"norm", "query", "key", "value", "out"}
    assert params["mid_attention"].keys() == of_attention and not any("cross" in name for name in params)
    _, params = unet(NOTHING, attention="transformer")
    assert not any(name.startswith("cross") for name in params["mid_attention"])


def test_channels_of_the_image_join_those_of_x():
    beside = Condition(image=drawn(2, 8, 8, 2, seed=4))
    model, params = unet(beside)
    x, t = drawn(2, 8, 8, 1), jnp.array([5, 700])
    whole = compiled(model)({"params": params}, jnp.concatenate([x, beside.image], axis=-1), t)
    np.testing.assert_array_equal(compiled(model)({"params": params}, x, t, beside), whole)


def test_noise_is_embedded_as_a_time_of_a_thousand():
    condition = Condition(noise=jnp.array([0.3, 0.02]))
    model, params = unet(condition)
    for i in (1, 2):
        params[f"noise_{i}"] = params[f"time_{i}"]  # now the two can change places
    swapped = output(model, params, Condition(noise=jnp.array([0.005, 0.7])), t=(300, 20))
    np.testing.assert_allclose(output(model, params, condition), swapped, atol=1e-4)


@pytest.mark.parametrize("attention", ["simple", "transformer"])
def test_a_time_that_is_a_token_is_told_by_attention_alone(attention):
    model, params = unet(NOTHING, time="token", attention=attention)
    assert not any("time" in params[name] for name in params if "conv_1" in params[name])
    assert np.abs(output(model, params, NOTHING) - output(model, params, NOTHING, t=(30, 2))).max() > 1e-4
    # A text as wide as the token, of which nothing is there, leaves the token alone.
    masked = text(features=32, mask=jnp.zeros((2, 5), bool))
    np.testing.assert_allclose(output(model, params, masked), output(model, params, NOTHING), atol=1e-5)


@pytest.mark.parametrize("options", KINDS, ids=NAMES)
def test_a_fresh_network_predicts_zero(options):
    given = text(image=drawn(2, 8, 8, 2), noise=jnp.array([0.0, 1.0]))
    model = UNet(1, **SMALL, **options)
    params = jax.jit(model.init)(jax.random.key(0), drawn(2, 8, 8, 1), jnp.array([5, 700]), given)["params"]
    np.testing.assert_array_equal(output(model, params, given), np.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize("options", [KINDS[0], KINDS[3]], ids=[NAMES[0], NAMES[3]])
def test_remat_changes_neither_output_nor_gradient(options):
    given, x, t = text(mask=jnp.array([[True] * 5, [False] * 5])), drawn(2, 8, 8, 1), jnp.array([5, 700])
    model, params = unet(given, **options)

    def gradient(model):
        def loss(params, given):
            return (model.apply({"params": params}, x, t, given, train=True) ** 2).mean()

        return jax.jit(jax.value_and_grad(loss))(params, given)

    both = gradient(model), gradient(UNet(1, **SMALL, remat=True, **options))
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 + 1e-4 * np.abs(a).max())


@pytest.mark.parametrize("options", [KINDS[1], KINDS[2]], ids=[NAMES[1], NAMES[2]])
def test_bfloat16_keeps_float32_parameters_and_comes_near(options):
    given = text(mask=jnp.array([[True] * 5, [False] * 5]), noise=jnp.array([0.0, 1.0]))
    model, params = unet(given, **options)
    half = UNet(1, **SMALL, dtype="bfloat16", **options)
    template = jax.eval_shape(half.init, jax.random.key(0), drawn(2, 8, 8, 1), jnp.array([5, 700]), given)
    assert {leaf.dtype for leaf in jax.tree.leaves(template)} == {F32}
    a, b = output(model, params, given), output(half, params, given)
    assert b.dtype == jnp.float32 and (a != b).any()
    np.testing.assert_allclose(a, b, atol=0.05 * np.abs(a).max())


@pytest.mark.parametrize(
    ("options", "condition", "message"),
    [
        (dict(time="tokens"), NOTHING, "unknown model.unet.time 'tokens'. Did you mean 'token'? Known: norm, token."),
        (
            dict(attention="transformr"),
            NOTHING,
            "unknown model.unet.attention 'transformr'. Did you mean 'transformer'? Known: simple, transformer.",
        ),
        (
            dict(time="token", scale_shift=True),
            NOTHING,
            "model.unet.scale_shift = True tells the time to the residual blocks, and with time = 'token' they are told "
            "none: set scale_shift = False, or time = 'norm'.",
        ),
        (
            dict(),
            Condition(image=jnp.zeros((2, 4, 8, 3))),
            "condition.image is 4 x 8, but its channels join those of an image of 8 x 8: resize it to that.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, condition, message):
    with pytest.raises(InputError) as caught:
        unet(condition, **options)
    assert str(caught.value) == message
