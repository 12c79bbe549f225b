import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm import sharding
from ddpm.data.images import Dataset
from ddpm.data.pipeline import Examples, feed
from ddpm.data.pixels import to_images, to_pixels
from ddpm.diffusion import losses, predictions, schedules, timesteps, weights
from ddpm.diffusion.model import Model
from ddpm.diffusion.processes import VP
from ddpm.errors import InputError, MachineError
from ddpm.rng import stream
from ddpm.training import loop
from ddpm.training.optimizer import optimizer
from ddpm.training.state import init_state
from ddpm.training.step import by_quarter, ema_decay, train_step

VP_COSINE = VP(schedules.cosine(1000))
LOSS = losses.weighted(weights.simple())
KEY = stream(0, "train")


def pixels(n=16, size=4):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (n, size, size, 1)), jnp.uint8)


def linear_network(params, x_t, t, *, train=False, key=None):
    """A network that compiles at once: eps_hat = a x_t + b t / T."""
    return params["a"] * x_t + (params["b"] * t / 1000)[:, None, None, None]


def make(tx=None, network=linear_network, decay=0.9, warmup=False, **options):
    tx = optax.sgd(0.1) if tx is None else tx
    state = init_state({"a": jnp.array(0.5), "b": jnp.array(0.0)}, tx)
    times = timesteps.uniform(VP_COSINE)
    return state, train_step(model_of(network), LOSS, times, tx, ema_decay(decay, warmup), **options)


def model_of(network):
    def model(params, labels, *, train, key):
        apply = lambda x, condition: network(params, x, condition, train=train, key=key)  # noqa: E731
        return Model(VP_COSINE, predictions.eps(), apply)

    return model


def close(a, b, atol):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=atol), jax.device_get(a), jax.device_get(b))


def test_pixels_and_images_invert_each_other():
    every = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    images = to_images(every)
    assert images.min() == -1 and images.max() == 1
    np.testing.assert_array_equal(to_pixels(images), every)
    np.testing.assert_array_equal(to_pixels(jnp.array([-9.0, 9.0])), [0, 255])


def test_the_exact_denoiser_of_a_point_has_no_loss():
    point = jnp.full((16, 4, 4, 1), 200, jnp.uint8)
    x_0 = 200 / 127.5 - 1

    def exact(params, x_t, t, *, train=False, key=None):
        t = t.astype(int)[:, None, None, None]
        a, s = jnp.asarray(VP_COSINE.alpha_bar)[t], 1 - jnp.asarray(VP_COSINE.alpha_bar)[t]
        return (x_t - jnp.sqrt(a) * x_0) / jnp.sqrt(s) + params["b"]

    state, step = make(network=exact)
    _, metrics = step(state, Examples(point), KEY)
    assert metrics["loss"] < 1e-4


def test_the_zero_network_has_the_loss_of_unit_noise():
    state, step = make()
    state.params["a"] = jnp.array(0.0)
    _, metrics = jax.jit(step)(state, Examples(pixels(2000)), KEY)
    assert metrics["loss"] == pytest.approx(1, abs=0.02)


def test_the_step_follows_the_gradient_of_its_loss():
    state, step = make()

    def loss(a):
        return float(
            step(state.__class__(**vars(state) | {"params": {"a": a, "b": jnp.array(0.0)}}), Examples(pixels()), KEY)[
                1
            ]["loss"]
        )

    slope = (loss(jnp.array(0.51)) - loss(jnp.array(0.49))) / 0.02  # the loss is quadratic in a: exact
    new, metrics = step(state, Examples(pixels()), KEY)
    assert float(new.params["a"]) == pytest.approx(0.5 - 0.1 * slope, rel=1e-3)
    assert float(metrics["grad_norm"]) >= abs(slope) * 0.999


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_is_the_closed_form(warmup):
    state, step = make(tx=optax.sgd(0.5), warmup=warmup)
    seen, step = [state.params["a"]], jax.jit(step)
    for n in range(5):
        state, _ = step(state, Examples(pixels()), jax.random.fold_in(KEY, n))
        seen.append(state.params["a"])
    decays = [min(0.9, (1 + n) / (10 + n)) if warmup else 0.9 for n in range(5)]
    weights = [np.prod(decays)] + [(1 - decays[n]) * np.prod(decays[n + 1 :]) for n in range(5)]
    assert float(state.ema_params["a"]) == pytest.approx(np.dot(weights, seen), rel=1e-5)


@pytest.mark.parametrize(
    ("what", "accumulate"), [("loss", 1), ("loss", 2), ("gradient", 1), ("gradient", 2), ("update", 1)]
)
def test_what_is_not_finite_changes_nothing_and_is_counted(what, accumulate):
    def poisoned(params, x_t, t, *, train=False, key=None):
        if what == "loss":
            return linear_network(params, x_t, t) + jnp.where(x_t.mean() > 9, 0, jnp.inf)
        if what == "gradient":
            return linear_network(params, x_t, t) + 0 * jnp.sqrt(params["b"] * 0)  # its derivative is 0 * inf
        return linear_network(
            {**params, "b": 0.0}, x_t, t
        )  # its gradient by b is 0, which Adam without eps divides by 0

    method = functools.partial(optax.adam, eps=0.0) if what == "update" else optax.adam
    tx = optimizer(method, learning_rate=1e-3, warmup_steps=0, clip_norm=1.0, accumulate=accumulate)
    state, step = make(tx, network=poisoned, accumulate=accumulate)
    new, metrics = jax.jit(step)(state, Examples(pixels()), KEY)
    assert not metrics["finite"] and new.skipped == 1 and new.batch == 1
    for before, after in zip(jax.tree.leaves(vars(state)), jax.tree.leaves(vars(new)), strict=True):
        if before.dtype == jnp.float32:
            np.testing.assert_array_equal(before, after)
    new, _ = jax.jit(step)(new, Examples(pixels()), KEY)
    assert new.skipped == 2
    healthy, _ = jax.jit(make(tx, accumulate=accumulate)[1])(new, Examples(pixels()), KEY)
    assert healthy.skipped == 0


def test_accumulation_is_the_mean_gradient_of_its_batches():
    tx = optimizer(optax.sgd, learning_rate=0.1, warmup_steps=0, clip_norm=1e9, accumulate=2)
    state, step = make(tx, accumulate=2)
    single, single_step = make(optax.sgd(0.1))
    halves = [
        (Examples(pixels()[:8]), jax.random.fold_in(KEY, 0)),
        (Examples(pixels()[8:]), jax.random.fold_in(KEY, 1)),
    ]
    steps = [single_step(single, *half)[0].params["a"] - 0.5 for half in halves]
    state, _ = step(state, *halves[0])
    assert state.params["a"] == 0.5 and state.ema_params["a"] == 0.5
    state, _ = step(state, *halves[1])
    assert float(state.params["a"]) == pytest.approx(0.5 + np.mean(steps), rel=1e-5)
    assert float(state.ema_params["a"]) == pytest.approx(0.9 * 0.5 + 0.1 * float(state.params["a"]), rel=1e-6)


def test_clipping_and_warm_up():
    tx = optimizer(optax.sgd, learning_rate=1.0, warmup_steps=4, clip_norm=2.0, accumulate=1)
    params, sizes = jnp.zeros(2), []
    state = tx.init(params)
    for _ in range(6):
        updates, state = tx.update(jnp.array([30.0, 40.0]), state, params)
        sizes.append(float(jnp.linalg.norm(updates)))
    np.testing.assert_allclose(sizes, [0.0, 0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(learning_rate=0.0), "learning_rate = 0.0 must be positive."),
        (dict(clip_norm=-1.0), "clip_norm = -1.0 must be positive."),
        (dict(accumulate=0), "accumulate = 0 must be at least 1."),
        (dict(warmup_steps=-1), "warmup_steps = -1 is negative; 0 means no warm-up."),
    ],
)
def test_optimizer_values_out_of_range_are_refused(change, message):
    with pytest.raises(InputError) as caught:
        optimizer(optax.sgd, **dict(learning_rate=1.0, warmup_steps=4, clip_norm=2.0, accumulate=1) | change)
    assert str(caught.value) == message


def test_the_loss_by_quarter_is_that_of_its_times():
    t = jnp.array([1, 250, 251, 500, 501, 1000])
    quarters = by_quarter(jnp.array([1.0, 3, 5, 7, 9, 11]), t / 1000)
    np.testing.assert_array_equal(quarters["quarter_loss"], [4, 12, 9, 11])
    np.testing.assert_array_equal(quarters["quarter_count"], [2, 2, 1, 1])


def test_pmap_gives_the_numbers_of_jit():
    state, step = make(optax.sgd(0.1))
    plain, metrics = jax.jit(step)(state, Examples(pixels()), KEY)
    _, per_device = make(optax.sgd(0.1), axis_name="data")
    shards = pixels().reshape(8, 2, 4, 4, 1)
    mapped, mapped_metrics = jax.pmap(per_device, axis_name="data", in_axes=(None, 0, None))(
        state, Examples(shards), KEY
    )
    close(jax.tree.map(lambda leaf: leaf[0], (vars(mapped), mapped_metrics)), (vars(plain), metrics), 1e-6)


def test_one_and_eight_devices_agree():
    state, step = make(optax.sgd(0.1))
    mesh = sharding.data_mesh()
    assert mesh.size == 8
    on_eight = jax.jit(step, in_shardings=(sharding.replicated(mesh), sharding.split(mesh), None))
    close(*[(vars(s), m) for s, m in (f(state, Examples(pixels()), KEY) for f in (jax.jit(step), on_eight))], 1e-6)


def run_feed(dataset, **options):
    mesh = sharding.data_mesh()
    placement = dict(split=sharding.split(mesh), replicated=sharding.replicated(mesh))
    return feed(dataset, seed=0, batch_size=8, flip=True, resident_bytes=2**30, **placement, **options), placement


def test_a_scan_of_steps_is_the_steps_one_by_one():
    data, placement = run_feed(Dataset(np.asarray(pixels(20))))
    given = next(data.start(0))
    results = []
    for batches in ([1, 1, 1], [3]):
        state, step = make(optax.sgd(0.1))
        state, losses = jax.device_put(state, placement["replicated"]), []
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
        )
        steps = loop.Steps(step, data, 0, abstract, batches[0])
        for n in batches:
            state, metrics = steps(state, given, n)
            losses.extend(np.ravel(metrics["loss"]))
        results.append((vars(state), losses))
    close(*results, 1e-6)


def test_a_step_that_is_not_of_the_code_is_told_while_it_trains(monkeypatch):
    """The next checkpoint may be hours away."""

    def stale():
        raise MachineError("a step of other code")

    monkeypatch.setattr(loop.traced, "kept", lambda step, *_: (step, stale))
    data, placement = run_feed(Dataset(np.asarray(pixels(20))))
    given = next(data.start(0))
    state, step = make(optax.sgd(0.1))
    state = jax.device_put(state, placement["replicated"])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    steps = loop.Steps(step, data, 0, abstract, 1, {})
    with pytest.raises(MachineError, match="a step of other code"):
        for _ in range(10_000):
            state, _ = steps(state, given, 1)


def test_a_batch_that_does_not_split_over_the_devices_is_refused():
    with pytest.raises(InputError) as caught:
        sharding.check_divisible("training.batch_size", 12, sharding.data_mesh())
    assert str(caught.value) == ("training.batch_size = 12 does not split evenly over 8 devices: use a multiple of 8.")
