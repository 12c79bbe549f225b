"""From a configuration to objects: below this, nothing knows of configurations."""

import functools
import inspect
import operator
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ddpm import datasets, latent_space, sharding
from ddpm.data.images import Dataset, Facts
from ddpm.data.pixels import to_images
from ddpm.diffusion.process import Noiseless
from ddpm.diffusion.variance import check_learned
from ddpm.errors import InputError
from ddpm.evaluation.network import FeatureNetwork
from ddpm.names import call, chosen, find, options_of, own_name, update
from ddpm.objective import Diffusion, loss, times_drawn
from ddpm.rng import per_index, stream
from ddpm.sampling import eps_power, grids, projections
from ddpm.sampling.batched import BatchedSampler
from ddpm.sampling.guidance import Guides
from ddpm.sampling.known import Kept
from ddpm.training import loop, optimizer, step


def feature_network(config: ConfigDict, real: Dataset) -> FeatureNetwork:
    """The network of `config.evaluation.features`; one that takes a `dataset` is given the real images."""
    section = config.evaluation.features
    network = find("feature network", "ddpm.evaluation.features", section.name)
    given = {"dataset": real} if "dataset" in inspect.signature(network).parameters else {}
    return call("feature network", network, options=options_of(section) | given)


def gradient_transformation(config: ConfigDict, parts: Sequence[str] = ()) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer`: any of optax by its name; `parts` of the parameters each by itself."""
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
        parts=parts,
    )
    try:
        jax.eval_shape(
            lambda w: tx.update(w, tx.init(w), w), {part: jnp.zeros((2, 2)) for part in parts or ("weight",)}
        )
    except TypeError as error:
        raise InputError(f"optax.{section.name} needs more than gradients and parameters: {error}.") from error
    return tx


def train_step(config: ConfigDict, made: Diffusion, tx: optax.GradientTransformation, **options) -> Callable:
    """The train step of an experiment."""
    return step.train_step(
        made.model,
        loss(config),
        times_drawn(config, made.process),
        tx,
        step.ema_decay(config.ema.decay, config.ema.warmup),
        stratified=config.timesteps.stratified,
        with_image=made.told.with_image,
        null=made.told.null,
        null_rate=config.condition.null_rate,
        accumulate=config.optimizer.accumulate,
        **options,
    )


def with_sampler(
    config: ConfigDict,
    sampler: str | None = None,
    num_steps: float | int | None = None,
    batch_size: int | None = None,
    labels: Sequence[int] | int | None = None,
    guidance_scale: float | int | None = None,
    guidance: dict | None = None,
    prompts: Sequence | str | None = None,
    given: str | None = None,
    known: dict | None = None,
    **options,
) -> ConfigDict:
    """A copy of a configuration with another choice in `config.sampler`; what is not given stays.

    Args:
      sampler: name of the algorithm, such as 'ddim'.
      num_steps: transitions, 1..T.
      batch_size: images that are drawn at once.
      labels: one class, or several that the images have in turn.
      guidance_scale: 0 unconditional, 1 off, > 1 guided.
      guidance: other keys of `config.guidance`, such as classifiers.
      prompts: one text, or several that the images have in turn.
      given: an .npz of the images to restore, or the run that draws them.
      known: keys of `config.known`, such as name='inpainting'.
      options: of the algorithm, such as eta.
    """
    config = ConfigDict(config.to_dict())
    section = config.sampler
    section.name = sampler or section.name
    if num_steps is not None:
        try:
            section.num_steps = operator.index(num_steps)
        except TypeError as error:
            raise InputError(f"num_steps = {num_steps!r} is no whole number.") from error
    section.batch_size = section.batch_size if batch_size is None else batch_size
    if labels is not None:
        section.labels = tuple(np.atleast_1d(labels).tolist())
    if prompts is not None:
        section.prompts = (
            (prompts,) if isinstance(prompts, str) else tuple(prompts if isinstance(prompts, Sequence) else [prompts])
        )
        if not all(isinstance(prompt, str) for prompt in section.prompts):
            raise InputError(f"prompts = {prompts!r} are no texts.")
    if given is not None and not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"given = {type(given).__name__} is no path: save the images with numpy.savez, and give the file."
        )
    section.given = section.given if given is None else str(given)
    update("known", config.known, known or {})
    told = (
        {}
        if guidance_scale is None
        else {"scale": guidance_scale if isinstance(guidance_scale, str) else float(guidance_scale)}
    )
    update("guidance", config.guidance, (guidance or {}) | told)
    section[own_name(section)] = options_of(section) | options
    return config


def sampler_of(config: ConfigDict, made: Diffusion) -> Callable:
    """(process, eps_power) -> the Sampler of `config.sampler`; eps_power is for the optimal variance, else ignored."""
    section = config.sampler
    algorithm, options = find("sampler", "ddpm.sampling", section.name), options_of(section)
    optimal = options.get("variance") == "optimal"
    if "variance" in options and not optimal:
        check_learned(options["variance"], made.learned_variance)

    def of(forward, power):
        return call("sampler", algorithm, forward, options=options | ({"eps_power": power} if optimal else {}))

    of(Noiseless(made.process), jnp.ones_like)  # options that are wrong are told now
    return of


def batched_sampler(
    config: ConfigDict, made: Diffusion, guided: Guides, facts: Facts, mesh: jax.sharding.Mesh
) -> BatchedSampler:
    """The sampler of `config.sampler` along `config.grid`, for images such as the model was trained on.

    Raises:
      InputError: the model draws no images, or latents that would be clipped.
    """
    if made.classifies:
        raise InputError(
            f"a classifier (loss '{config.loss.name}') draws no images: while it trains, set training.sample_every and "
            "training.evaluate_every to 0; name its run in guidance.classifiers of a diffusion model."
        )
    section = config.sampler
    space = latent_space.of(config, facts, mesh)
    if space and section.clip:
        raise InputError(
            "sampler.clip = True clips x0_hat to [-1, 1], and latents have no such range: set it to False."
        )
    return BatchedSampler(
        made.model,
        guided,
        sampler_of(config, made),
        grid(config, made),
        facts.shape,
        clip=section.clip,
        percentile=section.percentile,
        batch_size=section.batch_size,
        replicated=sharding.replicated(mesh),
        split=sharding.split(mesh),
        null=made.told.null,
        space=space,
        kept=kept(config, made),
        eps_power=_eps_power(config, made) if options_of(section).get("variance") == "optimal" else None,
    )


def kept(config: ConfigDict, made: Diffusion) -> Kept | None:
    """What samples keep of the images they are given: by `config.known`, or as the model was trained."""
    section = config.known
    if section.name:
        if section.resamples < 1:
            raise InputError(f"known.resamples = {section.resamples} must be at least 1; RePaint uses 10.")
        if made.told.degradation:
            raise InputError(
                f"the model was trained for condition.image.name = '{config.condition.image.name}': set known.name to ''."
            )
        return Kept(chosen("kind of knowledge", projections, section), section.resamples)
    if made.told.degradation and made.told.degradation.needs_known:
        return Kept(projections.inpainting(), 0)
    return None


def _eps_power(config: ConfigDict, made: Diffusion) -> Callable:
    """(params, times) -> what ancestral sampling with the optimal variance has to know, by images of `config.data`."""

    @jax.jit
    def measure(params, some, times):
        keys = per_index(stream(0, "degradation"), jnp.arange(len(some.pixels)))
        condition = made.told.with_image(some.condition, to_images(some.pixels), keys)
        return eps_power.measured(made.model(params, condition), some.pixels, times)

    @functools.cache
    def examples():
        images = datasets.training_set(config)
        return eps_power.some_examples(images, datasets.conditions(made, images))

    return lambda params, times: measure(
        params, examples(), jnp.asarray(times, jax.dtypes.canonicalize_dtype(times.dtype))
    )


def grid(config: ConfigDict, made: Diffusion) -> np.ndarray:
    """The times of `config.grid` for `config.sampler.num_steps`."""
    name = config.grid.name
    if made.learned_process and name in ("log_snr", "karras"):
        raise InputError(f"grid '{name}' is of a known process, and this one is learned: use trailing.")
    found = find("grid", grids.__name__, name)
    options = options_of(config.grid) | {"final": config.grid.final}
    return call("grid", found, made.process, config.sampler.num_steps, options=options)


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
