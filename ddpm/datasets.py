"""From a configuration to the data: images, what a model is trained on and is told of them, and the batches."""

import pathlib

from ml_collections import ConfigDict

from ddpm.cache import cache_directory
from ddpm.condition import NOTHING, Condition
from ddpm.data import latents
from ddpm.data.images import Dataset, Labels
from ddpm.data.pipeline import Feed, feed
from ddpm.errors import InputError
from ddpm.names import call, find, options_of
from ddpm.objective import Diffusion
from ddpm.text import encoder


def dataset(config: ConfigDict) -> Dataset:
    """The data set of `config.data`."""
    name = config.data.name
    return call("data set", find("data set", "ddpm.data", name), options=options_of(config.data))


def training_set(config: ConfigDict) -> Dataset:
    """What a model is trained on: the data set of `config.data`, or its latents.

    Raises:
      InputError: the latents are not there, or not those of `config.data` by `config.latents.autoencoder`.
    """
    section = config.latents
    if not section.autoencoder:
        return dataset(config)
    if config.data.flip:
        raise InputError("data.flip = True mirrors images, and latents of mirrored images are others: set it to False.")
    if not section.path:
        raise InputError("latents.path = '': name the folder that --mode encode writes and training reads.")
    found, about = latents.read(pathlib.Path(section.path).expanduser(), "run the same --config with --mode encode")
    if about["data"]["name"] != data_name(config):
        raise InputError(
            f"{section.path} holds latents of {about['data']['name']}, and the data are {data_name(config)}: give another "
            "latents.path, and encode."
        )
    return found


def data_name(config: ConfigDict) -> str:
    """A data set in a word or two, such as 'digits:train' or 'cifar10:train'."""
    options = options_of(config.data)
    name = options.get("dataset") or options.get("path") or config.data.name
    return ":".join(filter(None, [name, options.get("split")]))


def conditions(made: Diffusion, images: Dataset) -> Condition:
    """What a model is told of the images of a set, row i of image i.

    Raises:
      InputError: it is told what is not known of them.
    """
    told = NOTHING
    if made.told.classes:
        if images.labels is None:
            raise InputError("the model is told classes, and these images have none: take images of known classes.")
        told = told._replace(labels=Labels(images.labels))
    if made.told.encoder:
        if images.captions is None:
            raise InputError("the model is told texts, and these images have no captions: take images that have.")
        features, mask = encoder.cached(made.told.encoder, images.captions, cache_directory("text"))
        told = told._replace(text=features, mask=mask)
    return told


def batches(config: ConfigDict, made: Diffusion | None, images: Dataset, **shardings) -> Feed:
    """The batches of an experiment; `made` is the model that is told of them, if any is."""
    return feed(
        images,
        seed=config.seed,
        batch_size=config.training.batch_size,
        flip=config.data.flip,
        resident_bytes=config.data.resident_bytes,
        conditions=conditions(made, images) if made else NOTHING,
        **shardings,
    )
