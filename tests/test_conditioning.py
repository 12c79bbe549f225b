"""Classes: from the data to the network, left out at random, asked for, and guidance by them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from classes import MEANS, NULL, both_of, class_model
from ml_collections import ConfigDict
from samplers import SAMPLERS, process_of, table

from ddpm import objective, sharding
from ddpm.condition import Condition, only
from ddpm.data.images import Dataset, Facts, Labels
from ddpm.data.pipeline import Examples, feed
from ddpm.diffusion import losses, predictions, timesteps, weights
from ddpm.diffusion.model import Model
from ddpm.errors import InputError
from ddpm.guides import guides
from ddpm.rng import per_index, stream
from ddpm.sampling import batched, driver, grids
from ddpm.sampling.conditions import check_labels, of_classes
from ddpm.sampling.denoise import Told, denoiser
from ddpm.sampling.guidance import Guide, Guided, in_one_call
from ddpm.training.state import init_state
from ddpm.training.step import ema_decay, train_step


def guided_by_null(both, guide, scale):
    return Guided(in_one_call(both), both.process, guide, scale)


@pytest.mark.usefixtures("x64")
def test_guidance_is_linear_from_unconditional_to_conditional_and_beyond():
    vp, t = table(), jnp.array([400, 50, 900, 700])
    x_t, labels = jax.random.normal(jax.random.key(0), (4, 2)), jnp.array([0, 1, 2, 1])
    cond, uncond = class_model(vp, labels)(x_t, t), class_model(vp, NULL)(x_t, t)
    both = class_model(vp, both_of(labels))
    for scale in (0.0, 1.0, 2.5):
        guided = guided_by_null(both, Guide(), scale)(x_t, t)
        for hat, c, u in zip(guided[:2], cond[:2], uncond[:2], strict=True):
            np.testing.assert_allclose(hat, (1 - scale) * u + scale * c, rtol=1e-12, atol=1e-12)
            if scale == 0:
                np.testing.assert_array_equal(hat, u)
    one_t = guided_by_null(both, Guide(), 2.0)(x_t, 400)
    np.testing.assert_allclose(one_t.eps[0], guided_by_null(both, Guide(), 2.0)(x_t, t).eps[0], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_guidance_in_an_interval_is_off_elsewhere():
    vp, t = table(), jnp.array([900, 400, 50])
    x_t, labels = jax.random.normal(jax.random.key(0), (3, 2)), jnp.array([0, 1, 2])
    sigma_edm = np.asarray(vp.sigma(t) / vp.alpha(t))
    both, cond = class_model(vp, both_of(labels)), class_model(vp, labels)(x_t, t)
    inside = guided_by_null(both, Guide(interval=(0.9 * sigma_edm[1], 1.1 * sigma_edm[1])), 3.0)(x_t, t)
    everywhere = guided_by_null(both, Guide(), 3.0)(x_t, t)
    np.testing.assert_allclose(inside.x0[1], everywhere.x0[1], rtol=1e-12)
    np.testing.assert_allclose(inside.x0[::2], cond.x0[::2], rtol=1e-9)
    assert (jnp.abs(everywhere.x0 - cond.x0) > 1e-9).all()


@pytest.mark.usefixtures("x64")
def test_rescaling_brings_the_deviation_of_x0_hat_back():
    vp, t = table(), jnp.array([400, 600])
    x_t, labels = jax.random.normal(jax.random.key(0), (2, 2)), jnp.array([0, 1])
    both, cond = class_model(vp, both_of(labels)), class_model(vp, labels)(x_t, t)
    plain = guided_by_null(both, Guide(), 5.0)(x_t, t)
    for phi in (0.3, 1.0):
        x0, eps, _ = guided_by_null(both, Guide(rescale=phi), 5.0)(x_t, t)
        wanted = phi * cond.x0.std(axis=1) + (1 - phi) * plain.x0.std(axis=1)
        np.testing.assert_allclose(x0.std(axis=1), wanted, rtol=1e-12)
        np.testing.assert_allclose(vp.alpha(t)[:, None] * x0 + vp.sigma(t)[:, None] * eps, x_t, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_samples_the_class_that_it_is_told(name):
    process = process_of(name, "linear")
    labels = jnp.arange(300) % 3
    told = Told(lambda labels: denoiser(class_model(process, labels), clip=False), labels)
    times = jnp.asarray(grids.trailing(process, 1 if name == "ode" else 100))
    run = jax.jit(lambda keys: driver.generate(SAMPLERS[name](process), told, times, keys, (2,)).x)
    x = np.asarray(run(per_index(stream(0, "x"), jnp.arange(300))))
    if name == "predictor_corrector":  # whose signal-to-noise ratio is one of many dimensions
        return
    for label in range(3):
        np.testing.assert_allclose(x[label::3].mean(0), MEANS[label], atol=0.08)


def trained_on(labels, rate, n=4000):
    """The labels that a model is told in a train step."""
    seen = []

    def model(params, condition, *, train, key):
        seen.append(condition.labels)
        return Model(table(), predictions.eps(), lambda x, t: params["a"] * x)

    tx = optax.sgd(0.1)
    step = train_step(
        model, losses.weighted(weights.simple()), timesteps.uniform(table()), tx, ema_decay(0.9, False),
        null=Condition(NULL), null_rate=rate,
    )  # fmt: skip
    with jax.disable_jit():
        step(
            init_state({"a": jnp.array(0.5)}, tx),
            Examples(jnp.zeros((n, 2, 2, 1), jnp.uint8), Condition(labels)),
            stream(0, "train"),
        )
    return np.asarray(seen[0])


@pytest.mark.parametrize("rate", [0, 0.1, 1])
def test_the_share_of_labels_left_out_is_the_rate(rate):
    labels = jnp.arange(4000) % 3
    told = trained_on(labels, rate)
    dropped = told == NULL
    assert abs(dropped.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / 4000)
    np.testing.assert_array_equal(told[~dropped], np.asarray(labels)[~dropped])


@pytest.mark.parametrize("resident", [True, False])
def test_labels_stay_with_their_images(resident):
    pixels = np.broadcast_to(np.arange(37, dtype=np.uint8)[:, None, None, None], (37, 4, 4, 1))
    data = Dataset(pixels, tuple(map(str, range(37))), np.arange(37))
    mesh = sharding.data_mesh()
    made = feed(
        data, seed=0, batch_size=8, flip=True, resident_bytes=data.nbytes if resident else 0, conditions=Condition(Labels(data.labels)),
        split=sharding.split(mesh), replicated=sharding.replicated(mesh),
    )  # fmt: skip
    assert made.resident == resident
    given, draw = made.start(0), jax.jit(made.draw)
    for n in range(6):
        batch = draw(next(given), jnp.int32(n))
        np.testing.assert_array_equal(batch.condition.labels, batch.pixels[:, 0, 0, 0])
        assert len({shard.device for shard in batch.condition.labels.addressable_shards}) == 8


def conditional(tiny, dropout=0.1):
    tiny = ConfigDict(tiny.to_dict())
    tiny.condition.update(labels=True, null_rate=dropout)
    return objective.diffusion(tiny, (8, 8, 1), classes=3), tiny


def test_a_network_is_told_the_label_and_the_null_label_where_none_is_given(tiny):
    diffusion, config = conditional(tiny)
    assert (diffusion.told.classes, diffusion.told.null) == (3, Condition(3))
    params = jax.tree.map(lambda p: p + 0.02, jax.jit(diffusion.init)(objective.init_key(config)))
    assert params["label"]["embedding"].shape[0] == 4
    x, t = jnp.ones((4, 8, 8, 1)), jnp.full(4, 500)
    said = diffusion.model(params, Condition(jnp.array([0, 1, 3, 1])))(x, t).eps
    assert (said[0] != said[1]).any() and (said[1] == said[3]).all()
    np.testing.assert_allclose(diffusion.model(params)(x, t).eps[0], said[2], rtol=1e-5)
    np.testing.assert_allclose(diffusion.model(params, Condition(jnp.full(4, 1)))(x, t).eps[0], said[1], rtol=1e-5)
    always, _ = conditional(tiny, dropout=0.0)
    assert always.told.null is None
    with pytest.raises(
        InputError,
        match=r"^this model was trained without condition.null_rate, so it knows no image of which it is told nothing",
    ):
        always.model(params)


def test_a_network_hears_only_what_it_is_told(tiny):
    plain = objective.diffusion(tiny, (8, 8, 1), classes=3)
    params = jax.tree.map(lambda p: p + 0.02, jax.jit(plain.init)(objective.init_key(tiny)))
    x, t = jnp.ones((2, 8, 8, 1)), jnp.full(2, 500)
    of_others = Condition(jnp.array([0, 1]), jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool), x)
    np.testing.assert_array_equal(plain.model(params, of_others)(x, t).eps, plain.model(params)(x, t).eps)


def make_batched(tiny, traces=None, dropout=0.1, labels=(), scale=1.0):
    diffusion, config = conditional(tiny, dropout)
    config.guidance.scale = scale
    mesh = sharding.data_mesh(jax.devices()[:1])

    def model(params, condition=None):
        if traces is not None:
            traces.append(1)
        return diffusion.model(params, condition)

    params = jax.tree.map(lambda p: p + 0.02, jax.jit(diffusion.init)(objective.init_key(config)))
    return batched.BatchedSampler(
        model,
        guides(config, diffusion._replace(model=model), Facts((8, 8, 1), 1, ())),
        lambda process, power: SAMPLERS["ddim"](process),
        grids.trailing(diffusion.process, 5),
        (8, 8, 1),
        clip=True,
        batch_size=8,
        replicated=sharding.replicated(mesh),
        split=sharding.split(mesh),
        null=diffusion.told.null,
        asked=of_classes(diffusion.told.classes, labels),
    ), jax.device_put(params, sharding.replicated(mesh))


def test_a_network_that_is_told_something_is_not_left_without_it():
    with pytest.raises(InputError) as caught:
        only(Condition(labels=np.zeros(2, int)), Condition(labels=np.int32(0), noise=np.float32(0)))
    assert str(caught.value) == (
        "this model is told noise of each image, and is given none: give them, or no condition at all."
    )


def test_other_labels_or_another_scale_do_not_compile_anew(tiny):
    traces = []
    sampler, params = make_batched(tiny, traces, scale=2.0)
    first = next(sampler.batches(params, 8, seed=0))
    assert first.nfe.tolist() == [10] * 8 and set(first.labels) <= {0, 1, 2} and len(set(first.labels)) > 1
    np.testing.assert_array_equal(next(sampler.batches(params, 3, seed=0)).labels, first.labels[:3])
    scales = np.float32([4.0])
    compiled, times = len(traces), grids.trailing(table(), 5)
    of_two = next(sampler.along(times, of_classes(3, (2, 0)), scales).batches(params, 8, seed=0))
    assert of_two.labels.tolist() == [2, 0] * 4 and len(traces) == compiled
    assert (of_two.images != first.images).any()
    plain, params = make_batched(tiny, labels=(1,))
    assert next(plain.batches(params, 8, seed=0)).nfe.tolist() == [5] * 8


def test_what_an_image_is_led_to_depends_on_its_own_class_alone(tiny):
    sampler, params = make_batched(tiny)
    times, off = grids.trailing(table(), 5, final="sigma_min")[::-1], np.ones(1, np.float32)
    x = np.random.default_rng(0).uniform(-1, 1, (11, 8, 8, 1)).astype(np.float32)
    of_null = sampler.along(times, of_classes(3), off).lead(params, x)
    np.testing.assert_array_equal(sampler.along(times, of_classes(3), off).lead(params, x[3:4]), of_null[3:4])
    told = sampler.along(times, of_classes(3, (2, 0)), off).lead(params, x)
    np.testing.assert_array_equal(sampler.along(times, of_classes(3, (0,)), off).lead(params, x[3:4]), told[3:4])
    assert (told != of_null).any()
    always, params = make_batched(tiny, dropout=0.0)
    with pytest.raises(InputError, match=r"^this model knows no image of which it is told nothing: give labels.$"):
        always.along(times, of_classes(3), off).lead(params, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda tiny: make_batched(tiny, labels=(0, 3)),
            "label 3 is none of the 3 classes 0..2 of the data.",
        ),
        (
            lambda tiny: make_batched(tiny, dropout=0.0, scale=2.0),
            "guidance_scale = 2.0 needs a model that is told something, and what it says when it is told "
            "nothing: train one with condition.labels=True and condition.null_rate=0.1, give a worse model as guidance.worse, "
            "or sample with scale 1.",
        ),
        (
            lambda tiny: check_labels((1,), 0),
            "labels are for a model that is told classes: train it with condition.labels=True.",
        ),
        (
            lambda tiny: Guide(interval=(2, 1)),
            "guidance.interval = (2, 1) holds no sigma / alpha: give (low, high), 0 <= low < high.",
        ),
        (lambda tiny: Guide(math.nan), "guidance_scale = nan is no finite number; 1 is off, and papers use 1.5 to 8."),
        (lambda tiny: Guide(rescale=2), "guidance.rescale = 2 is not in [0, 1]; Lin et al. use 0.7."),
        (
            lambda tiny: objective.diffusion(told(tiny), (8, 8, 1)),
            "condition.labels = True, but the data have no classes: use data that have (a folder with a sub-folder a class, "
            "an .npz with labels, most TFDS sets), or set it to False.",
        ),
    ],
)
def test_what_cannot_be_is_refused(tiny, make, message):
    with pytest.raises(InputError) as caught:
        make(tiny)
    assert str(caught.value) == message


def told(tiny):
    tiny = ConfigDict(tiny.to_dict())
    tiny.condition.labels = True
    return tiny
