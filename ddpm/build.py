"""From a configuration to objects: below this, nothing knows of configurations."""

import functools
import inspect
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ddpm.data.images import Dataset
from ddpm.data.pipeline import Feed, feed
from ddpm.diffusion import (
    continuous,
    losses,
    predictions,
    processes,
    rescale,
    schedules,
    timesteps,
    uncertainty,
    weights,
)
from ddpm.diffusion.loss import Loss
from ddpm.diffusion.model import Model
from ddpm.diffusion.prediction import check
from ddpm.diffusion.process import Process
from ddpm.diffusion.timestep import Timesteps
from ddpm.diffusion.variance import check_learned
from ddpm.errors import InputError
from ddpm.evaluation.network import FeatureNetwork
from ddpm.names import call, chosen, find, options_of, own_name
from ddpm.rng import stream
from ddpm.sampling import grids
from ddpm.sampling.batched import BatchedSampler
from ddpm.training import loop, optimizer, sharding, step


class Network(NamedTuple):
    """A backbone as two functions.

    init: key -> params.
    apply: (params, x_t, t, *, train=False, key=None) -> output; `key` is for dropout.
    """

    init: Callable
    apply: Callable


def dataset(config: ConfigDict) -> Dataset:
    """The data set of `config.data`."""
    name = config.data.name
    return call("data set", find("data set", "ddpm.data", name), options=options_of(config.data))


def data_name(config: ConfigDict) -> str:
    """A data set in a word or two, such as 'digits:train' or 'cifar10:train'."""
    options = options_of(config.data)
    name = options.get("dataset") or options.get("path") or config.data.name
    return ":".join(filter(None, [name, options.get("split")]))


def feature_network(config: ConfigDict, real: Dataset) -> FeatureNetwork:
    """The network of `config.evaluation.features`; one that takes a `dataset` is given the real images."""
    section = config.evaluation.features
    network = find("feature network", "ddpm.evaluation.features", section.name)
    given = {"dataset": real} if "dataset" in inspect.signature(network).parameters else {}
    return call("feature network", network, options=options_of(section) | given)


def process(config: ConfigDict) -> Process:
    """The forward process of `config.process`; of a learned one, as it is before training."""
    init, of = _process(config)
    return of(init(init_key(config)))


def _process(config: ConfigDict) -> tuple[Callable[[jax.Array], dict], Callable[[dict], Process]]:
    """key -> its parameters, by the names they have among the model's; parameters -> process.

    One that takes a table is given `config.schedule`, a function `config.log_snr`; options of a learned one are its init's.
    """
    found, options = find("process", processes.__name__, config.process.name), options_of(config.process)
    takes = inspect.signature(found).parameters
    if "params" in takes:
        return (
            lambda key: {"log_snr": call("process", found.init, key, options=options)},
            lambda params: found(params["log_snr"]),
        )
    if "alpha_bar" in takes:
        options["alpha_bar"] = _table(config.schedule)
    elif "function" in takes:
        options["function"] = _function(config.log_snr)
    forward = call("process", found, options=options)
    return lambda key: {}, lambda params: forward


def _table(section: ConfigDict) -> np.ndarray:
    schedule = find("schedule", schedules.__name__, section.name)
    table = np.asarray(call("schedule", schedule, section.T, options=options_of(section)))
    if section.shift != 1:
        table = rescale.shifted(table, section.shift)
    return rescale.zero_terminal_snr(table) if section.zero_terminal_snr else table


def _function(section: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    function = find("log SNR", continuous.__name__, section.name)
    options = options_of(section)
    call("log SNR", function, jnp.ones(()), options=options)
    return rescale.shifted_function(lambda t: function(t, **options), section.shift)


def loss(config: ConfigDict) -> Loss:
    """The loss of `config.loss`; one that takes a weight is given that of `config.weight`."""
    found = find("loss", losses.__name__, config.loss.name)
    takes_weight = "weight" in inspect.signature(found).parameters
    given = [chosen("weight", weights, config.weight)] if takes_weight else []
    return call("loss", found, *given, options=options_of(config.loss))


class Diffusion(NamedTuple):
    """A model as functions of its parameters: init: key -> params; model: (params, *, train=False, key=None) -> Model.

    process: as it is before training.
    learned_variance: whether it learns one.
    """

    process: Process
    init: Callable
    model: Callable
    learned_variance: bool


def diffusion(config: ConfigDict, shape: tuple[int, int, int]) -> Diffusion:
    """The model of an experiment: process, prediction type and backbone, with the output channels that its loss needs.

    Raises:
      InputError: they do not fit together, or not the shape.
    """
    forward, objective = process(config), loss(config)
    init_process, process_of = _process(config)
    prediction = chosen("prediction", predictions, config.prediction)
    check(forward, prediction, config.prediction.name)
    net = network(config, shape, objective.outputs * shape[-1])
    learned_variance = objective.outputs == 2

    def init(key):
        more = {"uncertainty": uncertainty.init()} if objective.learns_uncertainty else {}
        return net.init(key) | init_process(jax.random.fold_in(key, 0)) | more

    def model(params, *, train=False, key=None):
        apply = functools.partial(net.apply, params, train=train, key=key)
        return Model(process_of(params), prediction, apply, learned_variance, params.get("uncertainty"))

    return Diffusion(forward, init, model, learned_variance)


def network(config: ConfigDict, shape: tuple[int, int, int], out_channels: int) -> Network:
    """The backbone of `config.model` for images of a shape (height, width, channels).

    Raises:
      InputError: the shape does not fit the backbone.
    """
    section = config.model
    backbone = find("model", "ddpm.models", section.name)
    model = call("model", backbone, out_channels, options=options_of(section))

    @jax.jit  # traced once, by the check below
    def init(key):
        return model.init(key, jnp.zeros((1, *shape)), jnp.ones((1,)))["params"]

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
    try:
        jax.eval_shape(lambda w: tx.update(w, tx.init(w), w), {"weight": jnp.zeros((2, 2))})
    except TypeError as error:
        raise InputError(f"optax.{section.name} needs more than gradients and parameters: {error}.") from error
    return tx


def times_drawn(config: ConfigDict, forward: Process) -> Timesteps:
    """How `config.timesteps` draws the times of training."""
    return chosen("t-distribution", timesteps, config.timesteps, forward)


def train_step(config: ConfigDict, made: Diffusion, tx: optax.GradientTransformation, **options) -> Callable:
    """The train step of an experiment."""
    return step.train_step(
        made.model,
        loss(config),
        times_drawn(config, made.process),
        tx,
        step.ema_decay(config.ema.decay, config.ema.warmup),
        stratified=config.timesteps.stratified,
        accumulate=config.optimizer.accumulate,
        **options,
    )


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
    config: ConfigDict, made: Diffusion, shape: tuple[int, int, int], mesh: jax.sharding.Mesh
) -> BatchedSampler:
    """The sampler of `config.sampler` for images of a shape."""
    section = config.sampler
    algorithm = find("sampler", "ddpm.sampling", section.name)
    options = options_of(section)
    if "variance" in options:
        check_learned(options["variance"], made.learned_variance)
    nfe = call("sampler", algorithm, made.process, options=options).nfe * section.num_steps
    times = chosen("grid", grids, config.grid, made.process, section.num_steps)
    return BatchedSampler(
        made.model,
        lambda forward: algorithm(forward, **options),
        times,
        shape,
        nfe=nfe,
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
