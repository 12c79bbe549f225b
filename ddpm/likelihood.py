"""Likelihood by a configuration: of which images, by which options, and the record of it."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ddpm import datasets, names, objective
from ddpm.data.images import Dataset
from ddpm.diffusion.variance import check_learned
from ddpm.errors import InputError
from ddpm.evaluate import named_dataset
from ddpm.evaluation import bits_per_dim, likelihoods, records, sources
from ddpm.training import checkpoint


def likelihood(
    metric: str,
    config: ConfigDict,
    dataset: Dataset,
    diffusion: objective.Diffusion,
    params: Any,
    shape: tuple[int, int, int],
    cache: pathlib.Path,
    *,
    name: str,
    step: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[dict, dict[str, np.ndarray]]:
    """The record of a likelihood of the reference images, `config.evaluation.num` of them; and what it is of each image.

    Raises:
      InputError: images of another shape than the model's, or a model of latents.
    """
    section = config.evaluation
    if config.latents.autoencoder:
        raise InputError(
            f"{metric} is of discrete pixels, and this model is one of latents: it has no bits per dimension."
        )
    if section.reference:
        dataset = named_dataset(section.reference, config)
    if dataset.facts.shape != shape:
        raise InputError(
            f"{section.reference} holds images of {dataset.facts.shape}, the run is of {shape} (height, width, channels): "
            "its model says nothing of them."
        )
    num = min(section.num, dataset.facts.count)
    source = sources.of_dataset(dataset, section.reference or datasets.data_name(config), num)
    function, options = names.find("likelihood", likelihoods.__name__, metric), dict(section[metric])
    if (
        "variance" in inspect.signature(function).parameters
    ):  # of p_theta: what it learned, or what ancestral sampling draws with
        options["variance"] = "learned" if diffusion.learned_variance else config.sampler.ancestral.variance
        check_learned(options["variance"], diffusion.learned_variance)
    if diffusion.told.degradation:
        raise InputError(
            "the model is told an image that is made of the one it draws: it has no likelihood of it alone."
        )
    told = jax.tree.map(
        lambda rows: np.stack([rows[int(i)] for i in source.chosen]), datasets.conditions(diffusion, dataset)
    )
    about = {"step": step, "params": "EMA", "params_sha256": sources.params_digest(params), "seed": seed}
    arrays = bits_per_dim.rows_of(
        function, options, diffusion.model, params, source,
        seed=seed, batch_size=section.batch_size, conditions=told, about=about, cache=cache, progress=progress,
    )  # fmt: skip
    about = {"kind": "run", "name": name, **about, "when": "afterwards"}
    found = bits_per_dim.figures(arrays)
    settings = {metric: options | getattr(function, "told", {})}
    return records.record(found, about, source.about, {"name": "likelihood"}, settings, checkpoint.versions()), arrays
