import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError
from ddpm.models.dit import DiT, axial, turned
from ddpm.models.dot_product import attend

SMALL = dict(width=16, depth=2, num_heads=2)
BOTH = pytest.mark.parametrize("positions", ["sincos", "rotary"])


def drawn(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def params_of(model, shape, condition=NOTHING):
    """Random ones: the zero-initialised layers would hide what is before them."""
    told = jnp.zeros((2, *shape)), jnp.ones(2), condition
    rng = np.random.default_rng(0)
    template = jax.eval_shape(model.init, jax.random.key(0), *told)["params"]
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape, scale=0.3), jnp.float32), template)


@functools.cache
def compiled(model):
    return jax.jit(model.apply, static_argnames="train")


def output(model, params, x, condition=NOTHING, t=(5, 700), **kwargs):
    return compiled(model)({"params": params}, x, jnp.array(t), condition, **kwargs)


def test_dit_s_2_of_the_paper_has_its_number_of_parameters():
    model = DiT(8, num_labels=1001)
    x, condition = jnp.zeros((1, 32, 32, 4)), Condition(jnp.zeros(1, int))
    leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), x, jnp.ones(1), condition))
    assert round(sum(leaf.size for leaf in leaves) / 1e6) == 33  # in its table 4


@BOTH
def test_a_fresh_network_predicts_zero_and_its_blocks_are_the_identity(positions):
    model = DiT(2, **SMALL, positions=positions)
    x = drawn(2, 8, 8, 2)
    params = jax.jit(model.init)(jax.random.key(0), x, jnp.ones(2))["params"]
    np.testing.assert_array_equal(output(model, params, x), np.zeros_like(x))
    params["out"]["kernel"] = drawn(*params["out"]["kernel"].shape)
    shallow = {name: value for name, value in params.items() if name != "block_1"}
    one_block = output(DiT(2, **SMALL | dict(depth=1), positions=positions), shallow, x)
    np.testing.assert_allclose(output(model, params, x), one_block, atol=1e-6)


@BOTH
@pytest.mark.parametrize(("shape", "patch_size"), [((8, 12, 3), 2), ((9, 3, 1), 3), ((2, 8, 4), 1)])
def test_any_divisible_size_and_channel_count(shape, patch_size, positions):
    model = DiT(5, **SMALL, patch_size=patch_size, positions=positions)
    assert output(model, params_of(model, shape), drawn(2, *shape)).shape == (2, *shape[:2], 5)


@BOTH
def test_a_patch_is_seen_by_all_through_attention_and_else_by_itself(positions):
    model = DiT(1, **SMALL, positions=positions)
    params, x = params_of(model, (4, 8, 1)), drawn(2, 4, 8, 1)
    other = x.at[0, 3, 4, 0].add(1)  # in the patch of rows 2, 3 and columns 4, 5

    def changed():
        difference = np.abs(output(model, params, x) - output(model, params, other)) > 1e-6
        assert not difference[1].any()  # of the other example
        return set(zip(*np.nonzero(difference[0, ..., 0]), strict=True))

    assert len(changed()) == 4 * 8
    for i in range(2):
        params[f"block_{i}"]["out"] = jax.tree.map(jnp.zeros_like, params[f"block_{i}"]["out"])
    assert changed() == {(row, column) for row in (2, 3) for column in (4, 5)}


def test_patches_that_are_alike_are_told_apart_by_sincos_alone():
    alike = jnp.tile(drawn(2, 2, 2, 1), (1, 2, 3, 1))
    for positions in ("sincos", "rotary"):
        model = DiT(1, **SMALL, positions=positions)
        y = output(model, params_of(model, (4, 6, 1)), alike)
        same = np.allclose(y, np.tile(y[:, :2, :2], (1, 2, 3, 1)), atol=1e-4)
        assert same == (positions == "rotary")


@BOTH
def test_positions_are_why_the_order_of_patches_is_seen(positions):
    model, x, order = DiT(1, **SMALL, positions=positions), drawn(2, 2, 8, 1), np.array([2, 0, 3, 1])
    params = params_of(model, (2, 8, 1))

    def seen():
        mixed = x.reshape(2, 2, 4, 2, 1)[:, :, order].reshape(x.shape)
        y = np.asarray(output(model, params, x)).reshape(2, 2, 4, 2, 1)[:, :, order].reshape(x.shape)
        return np.abs(y - output(model, params, mixed)).max() > 1e-3

    assert seen()
    for i in range(2):  # queries of zero attend to all alike, and where a zero is turned to does not matter
        params[f"block_{i}"]["query"] = jax.tree.map(jnp.zeros_like, params[f"block_{i}"]["query"])
    assert seen() == (positions == "sincos")


@settings(max_examples=20, deadline=None)
@given(dy=st.integers(-40, 40), dx=st.integers(-40, 40))
def test_rotary_attention_depends_on_relative_positions_alone(dy, dx):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(1, 12, 2, 8)), jnp.float32) for _ in range(3))
    angles = axial(3, 4, 4, base=100)
    by = axial(1, 2, 4, base=100)[1] * dx + axial(2, 1, 4, base=100)[1] * dy
    a, b = (attend(*(turned(h, jnp.asarray(at, jnp.float32)) for h in (q, k)), v) for at in (angles, angles + by))
    np.testing.assert_allclose(a, b, atol=1e-4)
    uneven = angles + by * np.arange(12)[:, None]  # and not where the shift differs
    c = attend(*(turned(h, jnp.asarray(uneven, jnp.float32)) for h in (q, k)), v)
    assert (dy, dx) == (0, 0) or np.abs(a - c).max() > 1e-3


def test_turning_by_axial_angles_is_a_rotation_of_planes_by_x_and_y():
    h, base = drawn(1, 6, 1, 8, seed=3), 100.0
    y = np.asarray(turned(h, jnp.asarray(axial(2, 3, 4, base=base), jnp.float32)))
    for token in range(6):
        row, column = divmod(token, 3)
        for i, angle in enumerate((column, column / base**0.5, row, row / base**0.5)):
            plane = complex(h[0, token, 0, i], h[0, token, 0, i + 4]) * np.exp(1j * angle)
            np.testing.assert_allclose(y[0, token, 0, [i, i + 4]], [plane.real, plane.imag], atol=1e-5)


def test_all_that_is_told_changes_the_output_of_its_example_alone():
    model, x = DiT(1, **SMALL, num_labels=3), drawn(2, 8, 8, 1)
    told = Condition(labels=jnp.array([0, 1]), image=drawn(2, 8, 8, 2, seed=4), noise=jnp.array([0.1, 0.1]))
    params = params_of(model, (8, 8, 1), told)
    before = output(model, params, x, told)
    changed = dict(
        labels=told._replace(labels=jnp.array([0, 2])),
        image=told._replace(image=told.image.at[1].add(1)),
        noise=told._replace(noise=jnp.array([0.1, 0.7])),
        t=told,
    )
    for name, condition in changed.items():
        after = output(model, params, x, condition, t=(5, 30) if name == "t" else (5, 700))
        np.testing.assert_allclose(before[0], after[0], atol=1e-5, err_msg=name)
        assert np.abs(before[1] - after[1]).max() > 1e-3, name


def test_channels_of_the_image_join_those_of_x():
    beside, model, x = Condition(image=drawn(2, 8, 8, 2, seed=4)), DiT(1, **SMALL), drawn(2, 8, 8, 1)
    params = params_of(model, (8, 8, 1), beside)
    whole = output(model, params, jnp.concatenate([x, beside.image], axis=-1))
    np.testing.assert_array_equal(output(model, params, x, beside), whole)


@BOTH
def test_bfloat16_keeps_float32_parameters_and_comes_near(positions):
    full, half = (DiT(1, **SMALL, positions=positions, dtype=dtype) for dtype in ("float32", "bfloat16"))
    x = drawn(2, 8, 8, 1)
    template = jax.eval_shape(half.init, jax.random.key(0), x, jnp.ones(2))
    assert {leaf.dtype for leaf in jax.tree.leaves(template)} == {jnp.dtype("float32")}
    params = jax.tree.map(lambda p: p / 2, params_of(full, (8, 8, 1)))
    a, b = output(full, params, x), output(half, params, x)
    assert b.dtype == jnp.float32 and (a != b).any()
    np.testing.assert_allclose(a, b, atol=0.05 * np.abs(a).max())


@BOTH
def test_remat_changes_neither_output_nor_gradient(positions):
    x, t = drawn(2, 8, 8, 1), jnp.array([5, 700])
    plain, remat = (DiT(1, **SMALL, positions=positions, dropout=0.2, remat=remat) for remat in (False, True))
    params = params_of(plain, (8, 8, 1))

    def gradient(model):
        def loss(params):
            rngs = {"dropout": jax.random.key(0)}
            return (model.apply({"params": params}, x, t, train=True, rngs=rngs) ** 2).mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    one, other = (jax.tree.leaves_with_path(gradient(model)) for model in (plain, remat))
    largest = max(np.abs(a).max() for _, a in one)
    for (path, a), (_, b) in zip(one, other, strict=True):
        cancels = positions == "sincos" and jax.tree_util.keystr(path).endswith("['key']['bias']")  # in the softmax
        if cancels:
            assert max(np.abs(a).max(), np.abs(b).max()) < 1e-6 * largest
        else:
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def test_dropout_acts_in_training_alone():
    model, x = DiT(1, **SMALL, dropout=0.5), drawn(2, 8, 8, 1)
    params = params_of(model, (8, 8, 1))
    a, b = (output(model, params, x, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(output(model, params, x), output(model, params, x))


@pytest.mark.parametrize(
    ("options", "condition", "message"),
    [
        (dict(depth=0), NOTHING, "model.dit.depth = 0 must be at least 1."),
        (dict(width=30), NOTHING, "model.dit.width = 30 must be a multiple of 4; DiT-S has 384."),
        (dict(num_heads=3), NOTHING, "model.dit.num_heads = 3 does not divide width = 16."),
        (dict(mlp_ratio=0), NOTHING, "model.dit.mlp_ratio = 0 must be positive; DiT has 4."),
        (dict(dropout=1), NOTHING, "model.dit.dropout = 1 is not in [0, 1); DiT has 0."),
        (dict(freq_shift=2), NOTHING, "model.dit.freq_shift = 2 must be 0 or 1."),
        (
            dict(positions="sincosine"),
            NOTHING,
            "unknown model.dit.positions 'sincosine'. Did you mean 'sincos'? Known: rotary, sincos.",
        ),
        (
            dict(positions="rotary", num_heads=8),
            NOTHING,
            "model.dit.positions = 'rotary' turns pairs of features by the row and pairs by the column, and 2 features a head "
            "are no multiple of 4: change width = 16 or num_heads = 8.",
        ),
        (
            dict(dtype="float16"),
            NOTHING,
            "unknown model.dit.dtype 'float16'. Did you mean 'bfloat16'? Known: bfloat16, float32.",
        ),
        (
            dict(patch_size=4),
            NOTHING,
            "image width 6 is not divisible by model.dit.patch_size = 4. Resize the images or change the patches.",
        ),
        (
            dict(),
            Condition(text=jnp.zeros((2, 3, 4))),
            "model 'dit' reads no text: use model 'unet', which does by cross-attention.",
        ),
        (
            dict(),
            Condition(image=jnp.zeros((2, 4, 6, 3))),
            "condition.image is 4 x 6, but its channels join those of an image of 8 x 6: resize it to that.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, condition, message):
    with pytest.raises(InputError) as caught:
        params_of(DiT(1, **SMALL | options), (8, 6, 1), condition)
    assert str(caught.value) == message
