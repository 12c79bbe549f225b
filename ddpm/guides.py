"""From the section `guidance` to what a sampler asks: the model alone, or guided by itself, by others, by functions."""

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm import trained
from ddpm.condition import Condition, with_null
from ddpm.data.images import Facts
from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.names import find
from ddpm.objective import Diffusion
from ddpm.sampling.guidance import Guide, Guided, Guides, in_one_call, of_two
from ddpm.sampling.steering import Steered


def guides(config: ConfigDict, made: Diffusion, facts: Facts) -> Guides:
    """The guides of `config.guidance`.

    Raises:
      InputError: a run that cannot guide this one, or guidance of a model that never learned what it says when told nothing.
    """
    section = config.guidance
    for kind in ("classifier", "function"):  # no mistake where a run's own guides are left out
        if section[f"{kind}_scale"] != 1 and not section[f"{kind}s"]:
            logging.warning("guidance.%s_scale scales nothing without guidance.%ss", kind, kind)
    guide, null = Guide(section.scale, section.interval, section.rescale), made.told.null
    worse = _opened(section.worse, made, facts, classifies=False) if section.worse and guide.is_on else None
    classifiers = [_opened(name, made, facts, classifies=True) for name in section.classifiers]
    functions = [find("function of x0_hat", "", name) for name in section.functions]
    classes = {told.classes for told in (made.told, *(run.diffusion.told for run in classifiers))} - {0}
    if len(classes) > 1:
        raise InputError(f"the classifiers and the model tell apart {sorted(classes)} classes: they must be the same.")
    if guide.is_on and worse is None and null is None:
        raise InputError(
            f"guidance_scale = {section.scale} needs a model that is told something, and what it says when it is told "
            "nothing: train one with condition.labels=True and condition.null_rate=0.1, give a worse model as "
            "guidance.worse, or sample with scale 1."
        )

    def of(params, others, scales, condition):
        if guide.is_on and worse:
            model = made.model(params, condition)
            pair = of_two(model, worse.diffusion.model(others["worse"], condition))
            bound = Guided(pair, model.process, guide, scales[0])
        elif guide.is_on:
            model = made.model(params, with_null(condition, null))
            bound = Guided(in_one_call(model), model.process, guide, scales[0])
        else:
            bound = model = made.model(params, condition)
        log_probs = [
            _of_x_t(run.diffusion.model(others["classifiers"][i], condition)) for i, run in enumerate(classifiers)
        ] + [_of_x0_hat(function, condition) for function in functions]
        return Steered(bound, model.process, log_probs, scales[1:]) if log_probs else bound

    others = {"worse": worse and worse.params, "classifiers": [run.params for run in classifiers]}
    return Guides(of, others, scales(config), 2 if guide.is_on else 1, max(classes, default=0))


def scales(config: ConfigDict) -> np.ndarray:
    """How far each guide pulls: w, then each classifier and each function.

    Raises:
      InputError: one that is no finite number.
    """
    section = config.guidance
    for name in ("scale", "classifier_scale", "function_scale"):
        if not isinstance(section[name], (int, float)) or not math.isfinite(section[name]):
            raise InputError(f"guidance.{name} = {section[name]!r} is no finite number; papers use 0 to 10.")
    each = [section.classifier_scale] * len(section.classifiers) + [section.function_scale] * len(section.functions)
    return np.asarray([section.scale, *each], np.float32)


def is_guided(config: ConfigDict) -> bool:
    """Whether samples are guided at all."""
    section = config.guidance
    return section.scale != 1 or bool(section.classifiers) or bool(section.functions)


class _Opened(NamedTuple):
    diffusion: Diffusion
    params: Any


def _opened(name: str, made: Diffusion, facts: Facts, classifies: bool) -> _Opened:
    workdir, _, step = name.partition("@")
    if step and not step.isdecimal():
        raise InputError(f"guide {name!r}: after @ stands the step of a checkpoint, such as {workdir}@1000.")
    run = trained.read(workdir, int(step) if step else None)
    diffusion = run.diffusion
    if diffusion.classifies != classifies:
        kinds = {True: "classifier (loss cross_entropy)", False: "diffusion model"}
        raise InputError(f"{workdir} is a {kinds[diffusion.classifies]}; this guide must be a {kinds[classifies]}.")
    if (run.facts.shape, run.facts.scale) != (facts.shape, facts.scale):
        raise InputError(f"{workdir} is of {_words(run.facts)}, the model of {_words(facts)}: it cannot guide it.")
    if not _same(diffusion.process, made.process):
        raise InputError(f"{workdir} was trained with another process or schedule than the model: it cannot guide it.")
    return _Opened(diffusion, run.params)


def _words(facts: Facts) -> str:
    of = f"latents of autoencoder {facts.scale.autoencoder}" if facts.scale else "images"
    return f"{of} of shape {facts.shape}"


def _same(a: Process, b: Process) -> bool:
    if (a.T, a.discrete) != (b.T, b.discrete):
        return False
    t = jnp.linspace(1, a.T, 9).astype(jnp.int32) if a.discrete else jnp.linspace(a.t_min, a.T, 9)
    return all(np.allclose(f(t), g(t), rtol=1e-4) for f, g in ((a.alpha, b.alpha), (a.sigma, b.sigma)))


def _of_x_t(classifier: Callable) -> Callable:
    return lambda x_t, t, x0_hat: classifier(x_t, t)


def _of_x0_hat(function: Callable, condition: Condition) -> Callable:
    return lambda x_t, t, x0_hat: function(x0_hat, condition)
