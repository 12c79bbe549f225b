"""From a configuration to the model, its loss and the times it is trained at."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm.condition import NOTHING, only, same_for_all
from ddpm.conditioning import Conditioning, conditioning
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
from ddpm.diffusion.classifier import Classifier
from ddpm.diffusion.loss import Loss
from ddpm.diffusion.model import Model
from ddpm.diffusion.prediction import check
from ddpm.diffusion.process import Process
from ddpm.diffusion.timestep import Timesteps
from ddpm.errors import InputError
from ddpm.models.winograd import kernels_fixed
from ddpm.names import call, chosen, find, options_of
from ddpm.rng import stream


class Network(NamedTuple):
    """A backbone as two functions.

    init: key -> params.
    apply: (params, x_t, t, condition, *, train=False, key=None) -> output; `key` is for dropout.
    """

    init: Callable
    apply: Callable


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
    """A model as functions of its parameters: init: key -> params; model: (params, condition=None, *, train=False, key=None) -> Model.

    Without a condition a model that can be told one is told the null condition.

    process: as it is before training.
    learned_variance: whether it learns one.
    learned_process: whether the process is learned.
    told: what it is told of each image; of a classifier, the classes are what it says.
    classifies: model gives a Classifier.
    """

    process: Process
    init: Callable
    model: Callable
    learned_variance: bool
    learned_process: bool
    told: Conditioning = Conditioning()  # noqa: RUF009
    classifies: bool = False


def diffusion(config: ConfigDict, shape: tuple[int, int, int], classes: int = 0) -> Diffusion:
    """The model of an experiment: process, prediction type and backbone, with the output channels that its loss needs.

    Args:
      classes: of the data, which the network is told if `config.condition.labels`.
    Raises:
      InputError: they do not fit together, or not the shape, or there are no classes to tell.
    """
    forward, trained_by, told = process(config), loss(config), conditioning(config, shape, classes)
    if trained_by.classifies:
        told = _as_answer(config, told, classes)
    if trained_by.classifies != getattr(find("model", "ddpm.models", config.model.name), "classifies", False):
        raise InputError(
            f"loss '{config.loss.name}' and model '{config.model.name}' do not go together: 'cross_entropy' trains "
            "'noisy_classifier', every other loss a model that draws images, such as 'unet'."
        )
    init_process, process_of = _process(config)
    is_learned = bool(jax.eval_shape(init_process, jax.random.key(0)))
    if is_learned and not trained_by.learns_process:
        raise InputError(
            f"process '{config.process.name}' is learned, and loss '{config.loss.name}' would be made less by moving the "
            "noise: train it with loss 'vdm', or use ContinuousVP."
        )
    prediction = chosen("prediction", predictions, config.prediction)
    check(forward, prediction, config.prediction.name)
    outputs = classes if trained_by.classifies else trained_by.outputs * shape[-1]
    net = network(config, shape, outputs, Conditioning() if trained_by.classifies else told)
    learned_variance = trained_by.outputs == 2

    def init(key):
        more = {"uncertainty": uncertainty.init()} if trained_by.learns_uncertainty else {}
        return net.init(key) | init_process(jax.random.fold_in(key, 0)) | more

    def model(params, condition=None, *, train=False, key=None):
        if condition is None and jax.tree.leaves(told.some) and told.null is None:
            raise InputError(
                "this model was trained without condition.null_rate, so it knows no image of which it is told nothing: "
                f"give it {' and '.join(name for name, kind in told.some._asdict().items() if kind is not None)}."
            )

        def apply(x_t, t):
            given = only(condition, told.some) if condition else same_for_all(told.null or NOTHING, len(x_t))
            return net.apply(params, x_t, t, given, train=train, key=key)

        bound = Model(process_of(params), prediction, apply, learned_variance, params.get("uncertainty"))
        return Classifier(bound, condition.labels) if trained_by.classifies else bound

    return Diffusion(forward, init, model, learned_variance, is_learned, told, trained_by.classifies)


def _as_answer(config: ConfigDict, told: Conditioning, classes: int) -> Conditioning:
    if jax.tree.leaves(told.some):
        raise InputError("a classifier is not told what it is to say: set condition.labels to False.")
    if not classes:
        raise InputError(f"loss '{config.loss.name}' needs the classes of the data, which have none.")
    return Conditioning(classes)


def network(
    config: ConfigDict,
    shape: tuple[int, int, int],
    out_channels: int,
    told: Conditioning = Conditioning(),  # noqa: B008
) -> Network:
    """The backbone of `config.model` for images of a shape (height, width, channels), of which it is told something.

    Raises:
      InputError: the shape does not fit the backbone.
    """
    section = config.model
    backbone = find("model", "ddpm.models", section.name)
    options = options_of(section) | ({"num_labels": told.num_labels} if told.num_labels else {})
    model = call("model", backbone, out_channels, options=options)

    @jax.jit  # traced once, by the check below
    def init(key):
        return model.init(key, jnp.zeros((1, *shape)), jnp.ones((1,)), same_for_all(told.some, 1))["params"]

    def apply(params, x_t, t, condition, *, train=False, key=None):
        rngs = {"dropout": key} if train else None
        with kernels_fixed(not train):
            return model.apply({"params": params}, x_t, t, condition, train=train, rngs=rngs)

    jax.eval_shape(init, jax.random.key(0))  # a shape that does not fit is told now
    return Network(init, apply)


def times_drawn(config: ConfigDict, forward: Process) -> Timesteps:
    """How `config.timesteps` draws the times of training."""
    made = chosen("t-distribution", timesteps, config.timesteps, forward)
    if loss(config).needs_uniform and not made.is_uniform:
        raise InputError(
            f"loss '{config.loss.name}' is a bound only as a mean over uniform t, and timesteps "
            f"'{config.timesteps.name}' are not uniform: use uniform, or loss_second_moment, which weighs."
        )
    return made


def init_key(config: ConfigDict) -> jax.Array:
    """The key parameters are drawn from."""
    return stream(config.seed, "init")
