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

from ddpm import build, conditioning, data, datasets, guides, main, models, names, objective, sampling, train
from ddpm.condition import Condition
from ddpm.data.images import Dataset
from ddpm.data.pipeline import Examples
from ddpm.diffusion import continuous, losses, predictions, processes, schedules, timesteps, weights
from ddpm.errors import InputError
from ddpm.evaluation import features, likelihoods
from ddpm.sampling import grids
from ddpm.text.encoder import TextEncoder
from ddpm.training import loop, sharding
from ddpm.training.state import init_state
from experiments import base, objectives

FILES = [path.stem for path in sorted((REPO / "experiments").glob("*.py")) if path.stem not in ("base", "__init__")]
EXPERIMENTS = [*FILES, *(f"objectives:{name}" for name in objectives.OBJECTIVES), "imagenet64:conditional"]
SHAPES = {
    "samplers": (28, 28, 1),
    "digits": (8, 8, 1),
    "digits_classes": (8, 8, 1),
    "digits_classifier": (8, 8, 1),
    "fashion_classes": (28, 28, 1),
    "fashion_super_resolution": (28, 28, 1),
    "fashion_inpainting": (28, 28, 1),
    "emoji_text": (64, 64, 3),
    "fashion": (28, 28, 1),
    "objectives": (28, 28, 1),
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
    optimizer=optax,
    sampler=sampling,
    grid=grids,
)


def get(name) -> ConfigDict:
    file, *argument = name.split(":")
    return importlib.import_module(f"experiments.{file}").get_config(*argument)


def shape_of(name):
    return SHAPES.get(name.partition(":")[0], (32, 32, 3))


def classes_of(config):
    return 1000 if config.condition.labels or config.loss.name == "cross_entropy" else 0


def made_sampler(config, shape=(8, 8, 1)):
    made = objective.diffusion(config, shape, classes_of(config))
    guided = guides.guides(config, made, shape)
    return build.batched_sampler(config, made, guided, shape, sharding.data_mesh())


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
    diffusion = objective.diffusion(c, shape_of(name), classes_of(c))
    tx = build.gradient_transformation(c)
    history = objective.times_drawn(c, diffusion.process).history
    state = jax.eval_shape(lambda key: init_state(diffusion.init(key), tx, history), objective.init_key(c))
    step = build.train_step(c, diffusion, tx)
    size = c.training.batch_size
    told = Condition(jax.ShapeDtypeStruct((size,), "int32") if diffusion.told.classes else None)
    if diffusion.told.encoder:
        text = jax.ShapeDtypeStruct((size, 4, 6), "float32")
        told = told._replace(text=text, mask=jax.ShapeDtypeStruct((size, 4), "bool"))
    batch = Examples(jax.ShapeDtypeStruct((size, *shape_of(name)), "uint8"), told)
    new, _ = jax.eval_shape(step, state, batch, objective.init_key(c))
    assert jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, new)
    if not diffusion.classifies:
        made_sampler(c, shape_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_takes_two_steps_on_fake_data(name):
    c, shape = get(name), (8, 8, shape_of(name)[2])  # small, and so in seconds
    c.training.batch_size = 8
    c.model.unet.update(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    c.model.dit.update(width=16, depth=1, num_heads=2)
    c.model.noisy_classifier.update(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    pixels = np.random.default_rng(0).integers(0, 256, (16, *shape), dtype=np.uint8)
    images = Dataset(pixels, labels=np.arange(16) % 3, captions=[f"image {i}" for i in range(16)])
    mesh = sharding.data_mesh(jax.devices()[:1])
    diffusion, tx = objective.diffusion(c, shape, classes_of(c)), build.gradient_transformation(c)
    feed = datasets.batches(c, diffusion, images, split=sharding.split(mesh), replicated=sharding.replicated(mesh))
    history = objective.times_drawn(c, diffusion.process).history
    state = jax.jit(lambda key: init_state(diffusion.init(key), tx, history), out_shardings=sharding.replicated(mesh))(
        objective.init_key(c)
    )
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    steps = loop.compile_steps(build.train_step(c, diffusion, tx), feed, c.seed, abstract, 1)
    given = feed.start(0)
    for _ in range(2):
        state, metrics = steps(state, next(given), 1)
    assert metrics["finite"] and state.batch == 2
    if c.loss.name == "weighted" and c.weight.name in ("simple", "output") and c.prediction.name != "x0":
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


def test_an_experiment_can_give_options_to_a_choice_that_base_does_not_know(tiny):
    with tiny.unlocked():
        tiny.sampler.update(name=f"{__name__}.my_sampler", my_sampler=dict(eta=2.0))
    with pytest.raises(InputError, match=r"^eta = 2.0 is not in \[0, 1\]"):
        made_sampler(tiny)


def test_every_key_of_base_is_read(tiny, tmp_path, monkeypatch):
    seen, sections, read = set(), {}, ConfigDict.__getitem__
    sections = {id(section): name for name, section in tiny.items() if isinstance(section, ConfigDict)} | {id(tiny): ""}

    def recorded(self, key):
        if id(self) in sections:
            seen.add(f"{sections[id(self)]}.{key}".removeprefix("."))
        return read(self, key)

    monkeypatch.setattr(train, "to_json", lambda c: {})
    monkeypatch.setattr(train.loop, "train", lambda state, *args, evaluate, **kwargs: evaluate(1, state) or (1, state))
    monkeypatch.setattr(train.pictures, "save_loss_curve", lambda *args: None)
    monkeypatch.setattr(ConfigDict, "__getitem__", recorded)
    train.train(tiny, tmp_path, accept_changes=False)
    monkeypatch.undo()
    elsewhere = inspect.getsource(main)
    for key, _ in leaves(tiny):
        if key.count(".") < 2:  # the options of choices have the test above
            assert key in seen or f".{key.rpartition('.')[2]}" in elsewhere, f"{key} is read by nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler.name": "dimm"}, "unknown sampler 'dimm'. Did you mean 'ddim'? Known: ancestral, ddim, deis, "),
        (
            {"schedule.name": "cosin"},
            "unknown schedule 'cosin'. Did you mean 'cosine'? Known: cosine, linear, quadratic, sigmoid, sqrt.",
        ),
        ({"data.name": "digit"}, "unknown data set 'digit'. Did you mean 'digits'? Known: digits, folder, npz, tfds."),
        ({"model.name": "unett"}, "unknown model 'unett'. Did you mean 'unet'? Known: dit, noisy_classifier, unet."),
        ({"optimizer.name": "adaam"}, "unknown optimizer 'adaam'. Did you mean 'adam'? Near to it: adam, "),
        ({"optimizer.name": "lbfgs"}, "optax.lbfgs needs more than gradients and parameters: "),
        ({"schedule.name": "math.pi"}, "schedule 'math.pi' is no function or class, but 3.141592653589793."),
        ({"schedule.name": "math.floor"}, "alpha_bar of shape () is no table of T + 1 >= 3 values that starts with 1."),
        ({"model.unet.dtype": "float64"}, "unknown model.unet.dtype 'float64'. Did you mean "),
        ({"optimizer.name": "clip"}, "optax.clip is no optimizer: it takes no learning_rate. DDPM uses adam."),
        ({"model.name": "nowhere.Net"}, "model 'nowhere.Net' cannot be imported: No module named 'nowhere'."),
        (
            {"prediction.name": "eps", "schedule.zero_terminal_snr": True},
            "prediction 'eps' is impossible where alpha_T = 0: it leaves x_0 undetermined there. Use v or x0 ",
        ),
        ({"process.name": "RectifiedFlow"}, "prediction 'eps' is impossible where alpha_T = 0: "),
        ({"process.name": "SubVPP"}, "unknown process 'SubVPP'. Did you mean 'SubVP'? Known: "),
        ({"weight.name": "minsnr"}, "unknown weight 'minsnr'. Did you mean 'min_snr'? Known: "),
        ({"timesteps.name": "log_normall"}, "unknown t-distribution 'log_normall'. Did you mean 'log_normal'? Known: "),
        (
            {"loss.name": "hybird"},
            "unknown loss 'hybird'. Did you mean 'hybrid'? Known: cross_entropy, hybrid, uncertain, ",
        ),
        (
            {"process.name": "ddpm.diffusion.process.Process"},
            "process 'Process' is abstract: name one that is made of it.",
        ),
        (
            {"process.name": "LearnedVP", "loss.name": "vdm", "grid.name": "log_snr"},
            "grid 'log_snr' is of a known process, and this one is learned: use trailing.",
        ),
        (
            {"process.name": "VE", "process.VE.t_min": 2.0},
            "t_min = 2.0 is not in (-1e-09, 1); score SDE uses 1e-5.",
        ),
        (
            {"process.name": "EDM", "process.EDM.sigma_max": 1.0},
            "alpha_bar_T = 0.5 leaves signal in x_T, but sampling starts from pure noise: it must be at most 0.01. Use ",
        ),
        (
            {"grid.name": "karas"},
            "unknown grid 'karas'. Did you mean 'karras'? Known: explicit, karras, leading, linspace, log_snr, quadratic, trailing.",
        ),
        (
            {"process.name": "EDM", "timesteps.name": "loss_second_moment"},
            "loss_second_moment remembers the losses of each noise level, but EDM has no levels. ",
        ),
        (
            {"sampler.ancestral.variance": "learned"},
            "variance 'learned' needs a network that says one: take 'beta' or 'posterior', or train with the loss ",
        ),
        ({"schedule.T": 1}, "T = 1 noise levels are too few; a schedule needs T >= 2 (DDPM uses 1000)."),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(tiny, change, message):
    tiny.update_from_flattened_dict(change)
    with pytest.raises(InputError) as caught:
        datasets.dataset(tiny)
        diffusion = objective.diffusion(tiny, (8, 8, 1))
        objective.times_drawn(tiny, diffusion.process)
        build.gradient_transformation(tiny)
        made_sampler(tiny)
    assert str(caught.value).startswith(message)


def test_an_option_that_a_choice_has_not_is_named(tiny):
    with tiny.unlocked():
        tiny.sampler.ancestral.etta = 1.0
    with pytest.raises(InputError) as caught:
        made_sampler(tiny)
    assert str(caught.value) == (
        "sampler 'ancestral': got an unexpected keyword argument 'etta'; it takes process, variance, eps_power."
    )


def my_sampler(process, *, eta=0.5):
    return names.find("sampler", "ddpm.sampling", "ddim")(process, eta=eta)


def test_a_dotted_name_finds_code_outside_the_package(tiny):
    tiny.sampler.name = f"{__name__}.my_sampler"
    made_sampler(tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 6}, "model.unet.channels = 6 must be a multiple of 4; DDPM uses 128."),
        ({"num_heads": 3}, "model.unet.num_heads = 3 does not divide 8 times (1,) channels."),
        ({"num_heads": 0}, "model.unet.num_heads = 0 must be at least 1."),
        ({"num_res_blocks": 0}, "model.unet.num_res_blocks = 0 must be at least 1."),
        ({"dropout": 1.5}, "model.unet.dropout = 1.5 is not in [0, 1); DDPM uses 0.1."),
        ({"channel_mult": ()}, "model.unet.channel_mult = () must be positive integers, one a level, as (1, 2, 2, 2)."),
        ({"dtype": "float17"}, "unknown model.unet.dtype 'float17'. Did you mean 'bfloat16'?"),
    ],
)
def test_network_values_out_of_range_are_refused(tiny, change, message):
    tiny.model.unet.update(change)
    with pytest.raises(InputError) as caught:
        objective.diffusion(tiny, (8, 8, 1))
    assert str(caught.value).startswith(message)


def test_facts_are_json(tiny):
    facts = datasets.dataset(tiny).facts
    assert dataclasses.asdict(facts)["shape"] == (8, 8, 1)
