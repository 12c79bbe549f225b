"""Contracts of all experiments: they build, take steps, and hold no key that nothing reads."""

import dataclasses
import importlib
import inspect

import jax
import numpy as np
import optax
import pytest
from conftest import REPO
from ml_collections import ConfigDict

from ddpm import (
    build,
    conditioning,
    data,
    datasets,
    guides,
    main,
    models,
    names,
    objective,
    reconstruction,
    sampling,
    sharding,
    train,
    train_autoencoder,
)
from ddpm.autoencoding import pixel_losses
from ddpm.condition import Condition
from ddpm.data.images import Dataset, Facts
from ddpm.data.pipeline import Examples
from ddpm.diffusion import continuous, losses, predictions, processes, schedules, timesteps, weights
from ddpm.evaluation import features, likelihoods
from ddpm.models import autoencoders
from ddpm.sampling import grids
from ddpm.text.encoder import TextEncoder
from ddpm.training import loop
from ddpm.training.state import init_state
from experiments import base, objectives

FILES = [path.stem for path in sorted((REPO / "experiments").glob("*.py")) if path.stem not in ("base", "__init__")]
EXPERIMENTS = [
    *FILES,
    *(f"objectives:{name}" for name in objectives.OBJECTIVES),
    "imagenet64:conditional",
    "emoji_text:latents",
]
SHAPES = {
    "samplers": (28, 28, 1),
    "latent_imagenet256": (64, 64, 3),
    "dit_imagenet256": (32, 32, 4),
    "digits": (8, 8, 1),
    "sweep_digits": (8, 8, 1),
    "digits_classes": (8, 8, 1),
    "digits_classifier": (8, 8, 1),
    "fast_fashion": (28, 28, 1),
    "fashion_classes": (28, 28, 1),
    "fashion_super_resolution": (28, 28, 1),
    "fashion_inpainting": (28, 28, 1),
    "emoji_text": (64, 64, 3),
    "emoji_text:latents": (8, 8, 32),
    "fashion": (28, 28, 1),
    "objectives": (28, 28, 1),
    "autoencoder_fashion": (28, 28, 1),
    "autoencoder_flowers": (64, 64, 3),
    "latent_flowers": (8, 8, 32),
    "imagenet64": (64, 64, 3),
}
PARAMETERS = {
    "linear_cifar": 35_746_307,
    "improved_cifar": 52_546_438,
    "imagenet64": 121_063_942,
    "imagenet64:conditional": 273_049_350,
}  # of the papers' code
# Sections that name a choice, and where their names are found.
PLACES = dict(
    data=data,
    process=processes,
    schedule=schedules,
    log_snr=continuous,
    prediction=predictions,
    loss=losses,
    weight=weights,
    timesteps=timesteps,
    model=models,
    autoencoder=autoencoders,
    optimizer=optax,
    sampler=sampling,
    grid=grids,
)


def get(name) -> ConfigDict:
    file, *argument = name.split(":")
    return importlib.import_module(f"experiments.{file}").get_config(*argument)


def shape_of(name):
    return SHAPES.get(name) or SHAPES.get(name.partition(":")[0], (32, 32, 3))


def classes_of(config):
    return 1000 if config.condition.labels or config.loss.name == "cross_entropy" else 0


def sampler(config, diffusion, shape):
    facts = Facts(shape, 1, ())
    return build.batched_sampler(
        config, diffusion, guides.guides(config, diffusion, facts), facts, sharding.data_mesh()
    )


def training(config, shape):
    """(key -> state, train step, the diffusion model; None of an autoencoder)."""
    if config.autoencoder.name:
        made = reconstruction.reconstruction(config, shape)
        tx = build.gradient_transformation(config, train_autoencoder.PARTS)
        return lambda key: init_state(made.init(key), tx), train_autoencoder.train_step(config, made, tx), None
    made, tx = objective.diffusion(config, shape, classes_of(config)), build.gradient_transformation(config)
    history = objective.times_drawn(config, made.process).history
    return lambda key: init_state(made.init(key), tx, history), build.train_step(config, made, tx), made


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    """A text encoder without weights: the published one is no dependency of the tests."""
    fake = TextEncoder(
        "fake", "0" * 16, 4, 6, lambda texts: (np.ones((len(texts), 4, 6), np.float32), MASK[: len(texts)]), None
    )
    monkeypatch.setattr(conditioning, "_encoder", lambda name, options: fake)


MASK = np.ones((64, 4), bool)


def leaves(section, prefix=""):
    for key, value in section.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else [(prefix + key, value)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_overrides_keys_of_base_by_values_of_their_type(name):
    defaults = dict(leaves(base.get_config()))
    for key, value in leaves(get(name)):
        assert type(value) is type(defaults[key]), key


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_opens_with_paper_and_command(name):
    text = importlib.import_module(f"experiments.{name}").__doc__
    assert "Paper:" in text and f"python -m ddpm.main --config experiments/{name}.py" in text
    lines = len(inspect.getsource(importlib.import_module(f"experiments.{name}")).splitlines())
    assert lines <= (40 if name != "objectives" else 70)  # a table of many


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_builds_and_its_network_fits_its_data(name):
    c = get(name)
    init, step, diffusion = training(c, shape_of(name))
    state = jax.eval_shape(init, objective.init_key(c))
    size = c.training.batch_size
    told = Condition(jax.ShapeDtypeStruct((size,), "int32") if diffusion and diffusion.told.classes else None)
    if diffusion and diffusion.told.encoder:
        text = jax.ShapeDtypeStruct((size, 4, 6), "float32")
        told = told._replace(text=text, mask=jax.ShapeDtypeStruct((size, 4), "bool"))
    batch = Examples(jax.ShapeDtypeStruct((size, *shape_of(name)), "uint8"), told)
    new, _ = jax.eval_shape(step, state, batch, objective.init_key(c))
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, new))
    if diffusion and not diffusion.classifies:
        sampler(c, diffusion, shape_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_takes_two_steps_on_fake_data(name, monkeypatch):
    room = []
    monkeypatch.setattr(loop, "keep_room", lambda: room.append(None))
    c, shape = get(name), (8, 8, shape_of(name)[2])  # small, and so in seconds
    c.training.batch_size = 8
    small = dict(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), head_channels=0)
    c.model.unet.update(small)
    c.model.dit.update(width=16, depth=1, num_heads=2)
    c.model.noisy_classifier.update(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    c.autoencoder.kl.update(channels=8, channel_mult=(1, 2), num_res_blocks=1)
    pixels = np.random.default_rng(0).integers(0, 256, (16, *shape), dtype=np.uint8)
    images = Dataset(pixels, labels=np.arange(16) % 3, captions=[f"image {i}" for i in range(16)])
    mesh = sharding.data_mesh(jax.devices()[:1])
    init, step, diffusion = training(c, shape)
    feed = datasets.batches(c, diffusion, images, split=sharding.split(mesh), replicated=sharding.replicated(mesh))
    state = jax.jit(init, out_shardings=sharding.replicated(mesh))(objective.init_key(c))
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    steps = loop.Steps(step, feed, c.seed, abstract, 1)
    given = feed.start(0)
    for _ in range(2):
        state, metrics = steps(state, next(given), 1)
    assert metrics["finite"] and state.batch == 2 and room
    if diffusion and c.loss.name == "weighted" and c.weight.name in ("simple", "output") and c.prediction.name != "x0":
        # A network that says zero, of targets between the variance of the data, 1/3, and of the noise, 1.
        assert 0.3 < metrics["loss"] < 1.6


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_of_papers_have_their_number_of_parameters(name):
    diffusion = objective.diffusion(get(name), shape_of(name), classes_of(get(name)))
    params = jax.eval_shape(diffusion.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[name]


def named_functions():
    sections = {section: (place, base.get_config()[section]) for section, place in PLACES.items()}
    sections["evaluation.features"] = (features, base.get_config().evaluation.features)
    bits = base.get_config().evaluation
    sections["evaluation"] = (likelihoods, {name: bits[name] for name in names.public(likelihoods)})
    for section, (place, choices) in sections.items():
        for name, options in choices.items():
            if isinstance(options, ConfigDict):
                yield pytest.param(section, place, name, options, id=f"{section}.{name}")


@pytest.mark.parametrize(("section", "place", "name", "options"), list(named_functions()))
def test_options_in_base_are_those_of_the_function_with_its_defaults(section, place, name, options):
    function = names.find(section, place.__name__, name)
    function = function.init if name == "LearnedVP" else function
    parameters = inspect.signature(function).parameters
    for key, value in options.items():
        assert key in parameters, f"{section}.{name}.{key} is read by nothing"
        default = parameters[key].default
        assert default is inspect.Parameter.empty or section == "optimizer" or default == value


def test_every_key_of_base_is_read(tiny, tmp_path, monkeypatch):
    seen, sections, read = set(), {}, ConfigDict.__getitem__
    small = ConfigDict(tiny.to_dict())
    small.autoencoder.update(name="kl", perceptual_weight=1.0, discriminator_weight=0.5)
    small.autoencoder.kl.update(channels=8, channel_mult=(1, 2), num_res_blocks=1)
    tiny.training.evaluate_every = small.training.evaluate_every = 1
    for config in (tiny, small):
        sections |= {id(section): name for name, section in config.items() if isinstance(section, ConfigDict)}
        sections[id(config)] = ""

    def recorded(self, key):
        if id(self) in sections:
            seen.add(f"{sections[id(self)]}.{key}".removeprefix("."))
        return read(self, key)

    monkeypatch.setattr(train, "to_json", lambda c: {})
    monkeypatch.setattr(train.loop, "train", lambda state, *args, evaluate, **kwargs: evaluate(1, state) or (1, state))
    monkeypatch.setattr(train.pictures, "save_loss_curve", lambda *args: None)
    monkeypatch.setattr(ConfigDict, "__getitem__", recorded)
    monkeypatch.setattr(train_autoencoder, "perceptual_distance", lambda path: pixel_losses.l2)
    train.train(tiny, tmp_path / "diffusion", accept_changes=False)
    train.train(small, tmp_path / "autoencoder", accept_changes=False)
    monkeypatch.undo()
    elsewhere = inspect.getsource(main)
    for key, _ in leaves(tiny):
        if key.count(".") < 2:  # the options of choices have the test above
            assert key in seen or f".{key.rpartition('.')[2]}" in elsewhere, f"{key} is read by nothing"


def test_facts_are_json(tiny):
    facts = datasets.dataset(tiny).facts
    assert dataclasses.asdict(facts)["shape"] == (8, 8, 1)
