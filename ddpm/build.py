"""From a configuration to objects: the only place that turns names into code."""

import importlib
import inspect
import operator
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ddpm.data.images import Dataset
from ddpm.data.pipeline import Feed, feed
from ddpm.diffusion import schedules
from ddpm.diffusion.processes import VP
from ddpm.errors import InputError, unknown_name
from ddpm.evaluation.network import FeatureNetwork
from ddpm.rng import stream
from ddpm.sampling.batched import BatchedSampler
from ddpm.training import loop, optimizer, sharding, step


class Network(NamedTuple):
    """A backbone as two functions.

    init: key -> params.
    apply: (params, x_t, t, *, train=False, key=None) -> output; `key` is for dropout.
    """

    init: Callable
    apply: Callable


def find(kind: str, place: str, name: str) -> Callable:
    """The public function or class `name` of a module; in a package, the one that its file `name`.py is named after.

    A name with dots is a full path, so that code outside `ddpm` is found too.

    Args:
      kind: what it is, for the error.
      place: module or package, such as 'ddpm.sampling'.
    Raises:
      InputError: nothing has that name; the known ones and the nearest are listed.
    """
    if "." in name:
        place, _, name = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{kind} '{place}.{name}' cannot be imported: {error}.") from error
        if not callable(found):
            raise InputError(f"{kind} '{place}.{name}' is no function or class, but {found!r:.50}.")
        return found
    known = public(importlib.import_module(place), name) or public(importlib.import_module(place))
    if name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def public(module: ModuleType, only: str | None = None) -> dict[str, Callable]:
    """What `find` finds in a module or package, by name; with `only`, that name alone, and no other file is imported."""
    found = {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and only in (None, name)
        and not name.startswith("_")
        and value.__module__.startswith(module.__name__)
    }
    for file in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if only in (None, file.name) and module.__name__.startswith("ddpm."):
            inside = public(importlib.import_module(f"{module.__name__}.{file.name}"))
            bare = file.name.replace("_", "")
            found |= {file.name: value for name, value in inside.items() if name.lower() in (file.name, bare)}  # noqa: B035
    return found


def call(kind: str, function: Callable, *args: Any, options: dict) -> Any:
    """function(*args, **options), with a clear error for an option it does not have or lacks.

    Raises:
      InputError: the options do not fit.
    """
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters)
        raise InputError(f"{kind} {function.__name__!r}: {error}; it takes {takes}.") from error
    return function(*args, **options)


def own_name(section: ConfigDict) -> str:
    """The choice's name without the path of a dotted one: where its options stand in the section."""
    return section.name.rpartition(".")[2]


def options_of(section: ConfigDict) -> dict:
    """The options a section holds for the choice it names, if there are any."""
    return dict(section[own_name(section)]) if own_name(section) in section else {}


def dataset(config: ConfigDict) -> Dataset:
    """The data set of `config.data`."""
    name = config.data.name
    return call("data set", find("data set", "ddpm.data", name), options=options_of(config.data))


def data_name(config: ConfigDict) -> str:
    """A data set in a word or two, such as 'digits:train' or 'cifar10:train'."""
    options = options_of(config.data)
    return ":".join(
        filter(None, [options.get("dataset") or options.get("path") or config.data.name, options.get("split")])
    )


def feature_network(config: ConfigDict, real: Dataset) -> FeatureNetwork:
    """The network of `config.evaluation.features`; one that takes a `dataset` is given the real images."""
    section = config.evaluation.features
    network = find("feature network", "ddpm.evaluation.features", section.name)
    given = {"dataset": real} if "dataset" in inspect.signature(network).parameters else {}
    return call("feature network", network, options=options_of(section) | given)


def process(config: ConfigDict) -> VP:
    """The forward process of `config.schedule`."""
    section = config.schedule
    schedule = find("schedule", schedules.__name__, section.name)
    return VP(np.asarray(call("schedule", schedule, section.T, options=options_of(section))))


def network(config: ConfigDict, shape: tuple[int, int, int]) -> Network:
    """The backbone of `config.model` for images of a shape (height, width, channels).

    Raises:
      InputError: the shape does not fit the backbone.
    """
    section = config.model
    backbone = find("model", "ddpm.models", section.name)
    model = call("model", backbone, shape[-1], options=options_of(section))

    @jax.jit  # traced once, by the check below
    def init(key):
        return model.init(key, jnp.zeros((1, *shape)), jnp.ones((1,), jnp.int32))["params"]

    def apply(params, x_t, t, *, train=False, key=None):
        return model.apply({"params": params}, x_t, t, train=train, rngs={"dropout": key} if train else None)

    jax.eval_shape(init, jax.random.key(0))  # a shape that does not fit is told now
    return Network(init, apply)


def gradient_transformation(config: ConfigDict) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer`: any of optax by its name."""
    section = config.optimizer
    method = find("optimizer", "optax", section.name)
    if "learning_rate" not in inspect.signature(method).parameters:
        raise InputError(f"optax.{section.name} is no optimizer: it takes no learning_rate. DDPM uses adam.")
    options = options_of(section)
    call("optimizer", method, section.learning_rate, options=options)
    tx = optimizer.optimizer(
        lambda rate: method(rate, **options),
        learning_rate=section.learning_rate,
        warmup_steps=section.warmup_steps,
        clip_norm=section.clip_norm,
        accumulate=section.accumulate,
    )
    weights = {"weight": jnp.zeros((2, 2))}
    try:
        jax.eval_shape(lambda w: tx.update(w, tx.init(w), w), weights)
    except TypeError as error:
        raise InputError(f"optax.{section.name} needs more than gradients and parameters: {error}.") from error
    return tx


def train_step(config: ConfigDict, net: Network, tx: optax.GradientTransformation, **options) -> Callable:
    """The train step of an experiment."""
    decay = step.ema_decay(config.ema.decay, config.ema.warmup)
    return step.train_step(process(config), net.apply, tx, decay, accumulate=config.optimizer.accumulate, **options)


def with_sampler(
    config: ConfigDict,
    sampler: str | None = None,
    num_steps: int | None = None,
    batch_size: int | None = None,
    **options,
) -> ConfigDict:
    """A copy of a configuration with another choice in `config.sampler`; what is not given stays.

    Args:
      sampler: name of the algorithm, such as 'ddim'.
      num_steps: transitions, 1..T.
      batch_size: images that are drawn at once.
      options: of the algorithm, such as eta.
    """
    config = ConfigDict(config.to_dict())
    section = config.sampler
    section.name = sampler or section.name
    section.num_steps = section.num_steps if num_steps is None else operator.index(num_steps)
    section.batch_size = section.batch_size if batch_size is None else batch_size
    section[own_name(section)] = options_of(section) | options
    return config


def batched_sampler(
    config: ConfigDict, net: Network, shape: tuple[int, int, int], mesh: jax.sharding.Mesh
) -> BatchedSampler:
    """The sampler of `config.sampler` for images of a shape."""
    section, vp = config.sampler, process(config)
    algorithm = find("sampler", "ddpm.sampling", section.name)
    return BatchedSampler(
        vp,
        net.apply,
        call("sampler", algorithm, vp, options=options_of(section)),
        shape,
        num_steps=section.num_steps,
        clip=section.clip,
        batch_size=section.batch_size,
        replicated=sharding.replicated(mesh),
        split=sharding.split(mesh),
    )


def plan(config: ConfigDict) -> loop.Plan:
    """When the training loop does what."""
    section = config.training
    return loop.Plan(
        num_steps=section.num_steps,
        log_every=section.log_every,
        sample_every=section.sample_every,
        evaluate_every=section.evaluate_every,
        save_every=section.save_every,
        batch_size=section.batch_size,
        accumulate=config.optimizer.accumulate,
        max_skipped=section.max_skipped,
    )


def batches(config: ConfigDict, images: Dataset, **shardings) -> Feed:
    """The batches of an experiment."""
    return feed(
        images,
        seed=config.seed,
        batch_size=config.training.batch_size,
        flip=config.data.flip,
        resident_bytes=config.data.resident_bytes,
        **shardings,
    )


def init_key(config: ConfigDict) -> jax.Array:
    """The key parameters are drawn from."""
    return stream(config.seed, "init")
