"""Evaluation by a configuration: which images against which, seen by which network, and the figures."""

import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ddpm import build, datasets, names, trained
from ddpm.cache import cache_directory
from ddpm.data.folder import folder
from ddpm.data.images import Dataset
from ddpm.data.npz import npz
from ddpm.errors import InputError
from ddpm.evaluation import features, metrics, records, sources, statistics
from ddpm.evaluation.bits_per_dim import is_likelihood
from ddpm.evaluation.chunks import Chunks
from ddpm.evaluation.extract import Extracted, extract, of_statistics
from ddpm.evaluation.frechet import small_sample_warning
from ddpm.evaluation.network import FeatureNetwork, named
from ddpm.evaluation.points import check_same_dimension
from ddpm.evaluation.shares import draw_share
from ddpm.evaluation.sources import Source
from ddpm.guides import is_guided
from ddpm.sampling.batched import BatchedSampler
from ddpm.training import checkpoint

FILES = (".npz", ".pkl")  # of images or statistics
REMEDIES = {  # for what a feature network may lack
    ("inception", "logits"): "this file has no class head; --inception PATH takes one that has: torch-fidelity's "
    "weights-inception-2015-12-05-6726825d.pth, pytorch-fid's pt_inception-2015-12-05-6726825d.pth, NVIDIA's TorchScript."
}


class Evaluator:
    """Compares images with real ones by the settings of `config.evaluation`; what it needs is made when first used.

    Args:
      config: of the experiment; its data are the reference where `config.evaluation.reference` names no other.
      dataset: the experiment's data.
      progress: told a line now and then.
    Raises:
      InputError: an unknown metric or feature network, or a file of the reference that cannot be read.
    """

    def __init__(self, config: ConfigDict, dataset: Dataset, progress: Callable[[str], None] = lambda line: None):
        section = config.evaluation
        self._config, self._dataset, self._progress = config, dataset, progress
        for name in section.metrics:
            if is_likelihood(name):
                raise InputError(f"{name} is of images, not of samples: --mode eval --metrics {name} computes it.")
        self.metrics = {name: names.find("metric", metrics.__name__, name) for name in section.metrics}
        self._taps = sorted({"pool"}.union(*(metric.taps for metric in self.metrics.values())))
        names.find("feature network", features.__name__, section.features.name)
        if section.reference.endswith(FILES):  # told before a training starts, not at its first evaluation
            statistics.read(section.reference)

    def write_statistics(self, file: pathlib.Path, images: Extracted) -> None:
        """Writes the moments of images' features, to be a reference later."""
        network = self.network
        about = {"images": images.about, "features": records.of_network(network), "versions": checkpoint.versions()}
        statistics.write(file, {tap: images.moments(tap) for tap in self._taps}, about)

    @functools.cached_property
    def network(self) -> FeatureNetwork:
        """The feature network.

        Raises:
          InputError: it has not what a metric needs.
        """
        network = build.feature_network(self._config, self._dataset)
        for name, metric in self.metrics.items():
            if not set(metric.taps) <= set(network.taps):
                raise InputError(
                    f"feature network {network.name} has no '{metric.taps[0]}', only {', '.join(network.taps)}. Without "
                    f"it there is no {name}: {REMEDIES.get((network.name, *metric.taps), 'choose another network.')}"
                )
        return network

    @functools.cached_property
    def reference(self) -> Extracted:
        """The real images, or the statistics of a file."""
        return self._seen(self._config.evaluation.reference, self._config.evaluation.num_reference or None)

    @functools.cached_property
    def training(self) -> Extracted:
        """All images that the experiment trains on, whatever the reference: copies may be of any of them."""
        section = self._config.evaluation
        return self._seen("", None) if section.reference or section.num_reference else self.reference

    def images(self, name: str, num: int | None = None) -> Extracted:
        """`num` images of a folder, a file or a data set, to be evaluated; None for all."""
        return self._seen(name, num)

    def samples(self, source: Source, cache: pathlib.Path | None) -> Extracted:
        """Samples of a run, to be evaluated.

        Raises:
          InputError: what is found in vain once they are drawn, as for `__call__`.
        """
        self._check(source.about["name"], source.num, source.shape)
        return self._extract(source, cache)

    def __call__(self, generated: Extracted) -> dict:
        """The record of all metrics: figures and provenance.

        Raises:
          InputError: images of another shape, too few of them, or what a metric needs is not there; before any figure.
        """
        real = self.reference
        if generated.source:
            self._check(generated.about["name"], generated.source.num, generated.shape)
        for name, metric in self.metrics.items():
            _check_known(generated, metric.generated, metric.taps, name)
        figures, settings = {}, {}
        for name, metric in self.metrics.items():
            if name in ("fid", "sfid"):
                (tap,) = metric.taps
                warning = small_sample_warning(generated.moments(tap), real.moments(tap))
                if warning:
                    logging.warning("%s: %s", name, warning)
            against = getattr(self, metric.against)
            figures |= metric(generated, against)
            settings[name] = metric.settings | ({"training": against.about} if metric.against == "training" else {})
        figures = {named(name, self.network.name): value for name, value in figures.items()}
        network = records.of_network(self.network)
        return records.record(figures, generated.about, real.about, network, settings, checkpoint.versions())

    def _check(self, name: str, num: int, shape: tuple[int, int, int]) -> None:
        blank = jax.ShapeDtypeStruct((1, *shape), np.uint8)
        seen = jax.eval_shape(self.network.apply, self.network.params, blank)
        for metric_name, metric in self.metrics.items():
            real = getattr(self, metric.against)
            if real.shape not in (None, shape):
                raise InputError(
                    f"{name} holds images of {shape}, {real.about['name']} of {real.shape} (height, width, "
                    "channels): no figure compares them. Resize or convert one of them, and say so."
                )
            _check_known(real, metric.real, metric.taps, metric_name)
            if metric.real == "moments" or (metric.real and not real.source):  # of a file
                for tap in metric.taps:
                    check_same_dimension(len(real.moments(tap).mean), seen[tap].shape[-1])
            counted = [(num, name)]
            if metric.real == "features":
                counted.append((real.source.num if real.source else real.about["num"], real.about["name"]))
            least = metric.least(seen["pool"].shape[-1])
            for count, of in counted:
                if count < least:
                    raise InputError(f"{metric_name} needs {least} images or more, and there are {count} of {of}.")

    def _seen(self, name: str, num: int | None) -> Extracted:
        if name.endswith(FILES):
            file = statistics.read(name)
            if file.images is None:
                return of_statistics(name, self.network)
            if file.moments:  # ADM's: the moments of all real images, and some of the images
                images = self._extract(sources.of_dataset(npz(path=name), name, num), cache_directory("features"))
                return of_statistics(name, self.network).with_images(images)
        dataset = named_dataset(name, self._config) if name else self._dataset
        name = name or datasets.data_name(self._config)
        return self._extract(sources.of_dataset(dataset, name, num), cache_directory("features"))

    def _extract(self, source: Source, cache: pathlib.Path | None) -> Extracted:
        batch_size = self._config.evaluation.batch_size
        return extract(source, self.network, self._taps, batch_size=batch_size, cache=cache, progress=self._progress)


def _check_known(images: Extracted, what: str, taps: tuple[str, ...], metric: str) -> None:
    """Raises InputError where it is not known of images what a metric needs."""
    if what == "pixels":
        images.pixels(metric)
    for tap in taps:
        if what == "moments":
            images.moments(tap)
        elif what == "features" and tap not in set(images.features):  # of a set: to look one up reads it
            images.of(tap, metric)


def best_figure(section: ConfigDict) -> str | None:
    """The name of the figure that `best` of the section `evaluation` ranks by, if it ranks.

    Raises:
      InputError: it is no metric that the section computes.
    """
    if not section.best:
        return None
    if section.best not in section.metrics:
        raise InputError(
            f"evaluation.best = {section.best!r} is not among evaluation.metrics = {tuple(section.metrics)}; "
            "'' keeps no best checkpoint."
        )
    metric = names.find("metric", metrics.__name__, section.best)
    return named(metric.ranks, section.features.name)


def named_dataset(name: str, config: ConfigDict) -> Dataset:
    """Images by one word of the command line: a folder, a .npz file, or a data set such as 'digits:test' or 'cifar10:test'.

    Raises:
      InputError: nothing of that name.
    """
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
        return folder(path=name, size=0, channels=0)
    if name.endswith(".npz"):
        return npz(path=name)
    word, _, split = name.partition(":")
    section = ConfigDict(config.data.to_dict())
    if word != "digits":
        section.tfds.dataset = word
        word = "tfds"
    section.name = word
    section[word].split = split or "train"
    return datasets.dataset(ConfigDict({"data": section}))


def provenance(config: ConfigDict, params: Any, *, name: str, step: int, seed: int, when: str) -> dict:
    """All that samples of a run's EMA parameters by `config.sampler` depend on, and their name."""
    section = config.sampler
    return {
        "name": name,
        "step": step,
        "params": "EMA",
        "params_sha256": sources.params_digest(params),
        "sampler": section.name,
        "sampler_options": names.options_of(section),
        "num_steps": section.num_steps,
        "grid": config.grid.name,
        "grid_options": names.options_of(config.grid) | {"final": config.grid.final},
        "clip": section.clip,
        "percentile": section.percentile,
        "seed": seed,
        "labels": list(section.labels) or ("drawn evenly" if config.condition.labels else None),
        "prompts": list(section.prompts) or None,
        "given": _about_given(section.given, section.given_noise) if section.given else None,
        "known": config.known.to_dict() if config.known.name else None,
        "guidance": config.guidance.to_dict() if config.condition.labels or is_guided(config) else None,
        "rounding": "to the nearest of 256 levels",
        "when": when,
    }


def _about_given(name: str, noise: float) -> dict:
    path = pathlib.Path(name).expanduser()
    what = {"step": trained.checkpoints(path)[1][-1]} if path.is_dir() else {"sha256": sources.file_digest(path)}
    return {"name": name, "noise": noise} | what


def of_run(
    sampler: BatchedSampler,
    params: Any,
    config: ConfigDict,
    directory: pathlib.Path | None,
    *,
    num: int,
    seed: int,
    together: bool = False,
    **named: Any,
) -> Source:
    """Samples of a run; kept in `directory`, so that none is drawn twice. `named` is as for `provenance`.

    Args:
      together: draw them now, each process a share.
    """
    about = provenance(config, params, seed=seed, **named)
    drawn = directory / sources.digest(records.identity(about) | {"when": ""}) if directory else None

    def draw(first, last=num):
        return sampler.batches(params, last, seed=seed, first=first)

    if together:
        draw_share(drawn, draw, num, sources.kept)
    return sources.of_samples(draw, num, sampler.image_shape, about, Chunks(drawn))
