"""The training of an autoencoder: what it makes of images, and how near that comes."""

import logging

import jax
import numpy as np
from ml_collections import ConfigDict

from ddpm import build, datasets, pictures, sharding
from ddpm.autoencoding import pixel_losses
from ddpm.data.images import Dataset
from ddpm.errors import InputError, check_at_least
from ddpm.evaluate_autoencoder import Evaluation, reconstructor
from ddpm.evaluation import records, sources
from ddpm.evaluation.perceptual import perceptual_distance
from ddpm.names import find
from ddpm.reconstruction import Reconstruction, reconstruction
from ddpm.training.autoencoder_step import autoencoder_step
from ddpm.training.state import init_state
from ddpm.training.step import ema_decay
from ddpm.training.task import Task

SHEET, COLUMNS = 32, 8  # images in samples/, originals above what is made of them
PARTS = ("autoencoder", "discriminator")


def task(config: ConfigDict, images: Dataset, mesh: jax.sharding.Mesh) -> Task:
    """The training of the autoencoder of a configuration on images."""
    facts = images.facts
    if facts.scale:
        raise InputError("an autoencoder is trained on images, and the data are latents: set latents.path to ''.")
    made = reconstruction(config, facts.shape)
    tx = build.gradient_transformation(config, PARTS)
    shown = sources.of_dataset(images, datasets.data_name(config), min(SHEET, facts.count))
    here = sharding.data_mesh()
    reconstruct = reconstructor(made, SHEET, here)
    evaluation = Evaluation(config, made, facts.shape[-1], images, here) if config.training.evaluate_every else None

    def sheet(params, heed):
        (found,) = reconstruct(params, shown)
        heed(shown.num)
        pairs = [shown.pick(range(shown.num)), found["pixels"]]
        rows = [side[first : first + COLUMNS] for first in range(0, shown.num, COLUMNS) for side in pairs]
        return pictures.visible(pictures.grid(np.concatenate(rows), columns=COLUMNS))

    def evaluate(workdir, step, state, heed):
        try:
            record = evaluation(state.ema_params, name=str(workdir), step=step, when="training", heed=heed)
        except InputError as error:  # no reason to lose the run
            logging.warning("no figures at step %d: %s", step, error)
            return {}
        records.store(workdir, record)
        return record["figures"]

    def finish(workdir, step, state):
        if config.training.sample_every:
            yield f"pictures  {workdir}/samples/{step:08d}.png (step {step}, EMA): images, below each what is made of it"
        yield f"latents   --config.latents.autoencoder={workdir} trains a diffusion model of its latents"

    return Task(
        f"autoencoder {config.autoencoder.name}",
        lambda key: init_state(made.init(key), tx),
        train_step(config, made, tx),
        datasets.batches(config, None, images, split=sharding.split(mesh), replicated=sharding.replicated(mesh)),
        sheet,
        evaluate,
        finish,
    )


def train_step(config: ConfigDict, made: Reconstruction, tx):
    """The train step of an autoencoder by `config.autoencoder`.

    Raises:
      InputError: an unknown pixel loss, or a number out of its range.
    """
    section = config.autoencoder
    weights = {"perceptual_weight": section.perceptual_weight, "discriminator_weight": section.discriminator_weight}
    check_at_least(0, discriminator_start=section.discriminator_start, **weights)
    of_pixels = find("pixel loss", pixel_losses.__name__, section.pixel_loss)
    of_features = perceptual_distance(section.perceptual_path) if section.perceptual_weight else None

    def distance(x, x_hat):
        d = of_pixels(x, x_hat)
        return d + section.perceptual_weight * of_features(x, x_hat) if of_features else d

    return autoencoder_step(
        made.code,
        made.latents,
        made.features,
        made.image,
        made.discriminate,
        tx,
        ema_decay(config.ema.decay, config.ema.warmup),
        distance=distance,
        weight=section.discriminator_weight,
        start=section.discriminator_start,
        accumulate=config.optimizer.accumulate,
    )
