"""What an autoencoder makes of images: how near it comes, what its latents cost, and how they are spread."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm import datasets, sharding
from ddpm.autoencoding.psnr import psnr
from ddpm.config import check_same_run, to_json
from ddpm.data.images import Dataset
from ddpm.data.pixels import to_images, to_pixels
from ddpm.errors import InputError
from ddpm.evaluate import Evaluator, named_dataset
from ddpm.evaluation import records, sources
from ddpm.evaluation.sources import Source
from ddpm.reconstruction import Reconstruction, reconstruction
from ddpm.rng import per_index, stream
from ddpm.trained_autoencoder import trained_autoencoder
from ddpm.training import checkpoint


def reconstructor(
    made: Reconstruction, batch_size: int, mesh: jax.sharding.Mesh
) -> Callable[[Any, Source], Iterator[dict[str, np.ndarray]]]:
    """(params, images) -> what is made of them, a batch at a time, rows of each: 'pixels', 'psnr', 'rate' and 'z', their
    normalised latents; from the means of the latents, rounded to levels.
    """
    size, replicated, split = -(-batch_size // mesh.size) * mesh.size, sharding.replicated(mesh), sharding.split(mesh)

    @jax.jit
    def of(params, pixels):
        x = to_images(pixels)
        z = made.encode(params, x)
        x_hat = to_pixels(made.decode(params, z))
        rate = made.code(params["autoencoder"], x, per_index(stream(0, "rate"), jnp.arange(len(x)))).rate
        return {"pixels": x_hat, "psnr": psnr(x, to_images(x_hat)), "rate": rate, "z": z}

    def batches(params, images):
        params = jax.device_put(params, replicated)
        for first in range(0, images.num, size):
            at = np.arange(first, first + size).clip(max=images.num - 1)  # the last batch is filled up
            found = jax.device_get(of(params, jax.device_put(images.pick(at), split)))
            yield {name: rows[: images.num - first] for name, rows in found.items()}

    return batches


def figures(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over images, and the extremes over channels of mean and deviation of the latents, which should be 0 and 1."""
    z = found["z"].astype(np.float64)
    mean, std = z.mean(axis=(0, 1, 2)), z.std(axis=(0, 1, 2))
    return {
        "psnr": float(found["psnr"].mean()),
        "rate_bpd": float(found["rate"].mean()),
        "latent_mean_farthest": float(mean[np.argmax(np.abs(mean))]),
        "latent_std_least": float(std.min()),
        "latent_std_most": float(std.max()),
    }


class Evaluation:
    """Figures of what an autoencoder makes of the reference of `config.evaluation`; of the training images where it names none.

    Args:
      config: of the experiment; `config.evaluation.num` images are reconstructed.
      dataset: the experiment's data.
    Raises:
      InputError: no such reference, or one of another number of channels.
    """

    def __init__(
        self, config: ConfigDict, made: Reconstruction, channels: int, dataset: Dataset, mesh: jax.sharding.Mesh
    ):
        section = config.evaluation
        self._config, self._evaluator = config, Evaluator(config, dataset)
        images = named_dataset(section.reference, config) if section.reference else dataset
        name = section.reference or datasets.data_name(config)
        if images.facts.shape[-1] != channels:
            raise InputError(
                f"{name} holds images of {images.facts.shape[-1]} channels, and the autoencoder was trained with {channels}: "
                "convert them."
            )
        self._originals = sources.of_dataset(images, name, min(section.num, images.facts.count))
        self._reconstruct = reconstructor(made, section.batch_size, mesh)

    def __call__(
        self, params: Any, *, name: str, step: int, when: str, heed: Callable[[int], None] = lambda done: None
    ) -> dict:
        """The record: figures of the images and their latents, and those of `config.evaluation.metrics`.

        Args:
          params: EMA parameters.
          name, step: of the run.
          when: 'training' or 'afterwards'.
          heed: told of each batch.
        """
        parts = []
        for batch in self._reconstruct(params, self._originals):
            heed(len(batch["pixels"]))
            parts.append(batch)
        found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        about = {
            "kind": "reconstructions",
            "name": name,
            "step": step,
            "params": "EMA",
            "params_sha256": sources.params_digest(params),
            "sampler": self._config.autoencoder.name,
            "nfe": 1,
            "of": self._originals.about,
            "rounding": "to the nearest of 256 levels",
            "when": when,
            "num": self._originals.num,
            "shape": [*self._originals.shape],
        }
        if not self._evaluator.metrics:  # no need of a feature network
            network = {"name": "pixels and latents"}
            return records.record(figures(found), about, self._originals.about, network, {}, checkpoint.versions())
        source = dataclasses.replace(sources.of_dataset(Dataset(found["pixels"]), name), about=about)
        record = self._evaluator(self._evaluator.samples(source, None))
        return record | {"figures": figures(found) | record["figures"]}


def evaluate_run(
    config: ConfigDict | None, workdir: pathlib.Path, *, step: int | None, changes: dict, accept_changes: bool
) -> dict:
    """Figures of a trained run, stored in workdir/evaluation.jsonl.

    Args:
      config: whose sections data and evaluation are taken instead of the run's; None for the run's own.
      step: of the checkpoint; None for the newest.
      changes: to the configuration, by dotted names.
      accept_changes: as for `check_same_run`.
    """
    read = trained_autoencoder(workdir, step)
    settings = read.config
    if config is not None:
        check_same_run(to_json(settings), to_json(config), str(workdir), accept_changes)
        settings.update(data=config.data, evaluation=config.evaluation)
    settings.update_from_flattened_dict(changes)
    made, mesh = reconstruction(settings, read.facts.shape), sharding.data_mesh()
    evaluation = Evaluation(settings, made, read.facts.shape[-1], datasets.dataset(settings), mesh)
    record = evaluation(read.params, name=str(workdir), step=read.step, when="afterwards")
    records.store(workdir, record)
    return record
