"""From a configuration to the data: images, what a model is trained on and is told of them, and the batches."""

import json
import logging
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
    if not config.latents.autoencoder:
        return dataset(config)
    folder = latents_folder(config)
    found, about = latents.read(folder, "run the same --config with --mode encode")
    wanted = about["data"] | described(config)
    if _moved(wanted) != _moved(about["data"]):
        raise InputError(
            f"{folder} holds latents of {_words(about['data'])}, and the data are {_words(wanted)}: give another latents.path, "
            "and encode."
        )
    return found


def latents_folder(config: ConfigDict) -> pathlib.Path:
    """Where the latents of `config.data` are, or are to be.

    Raises:
      InputError: nowhere, or among the images; or images that are mirrored.
    """
    section, data = config.latents, config.data
    if not section.autoencoder or not section.path:
        raise InputError(
            f"latents.autoencoder = {section.autoencoder!r} and latents.path = {section.path!r}: name the autoencoder, and the "
            "folder that --mode encode writes and training reads."
        )
    if data.flip:
        raise InputError("data.flip = True mirrors images, and latents of mirrored images are others: set it to False.")
    folder, images = pathlib.Path(section.path).expanduser(), options_of(data).get("path")
    if images and folder.resolve() == pathlib.Path(images).expanduser().resolve():
        raise InputError(f"latents.path = {section.path!r} is where the images are: name a folder of its own.")
    return folder


def described(config: ConfigDict) -> dict:
    """What `config.data` says of the images, and their number and shape where they are at hand."""
    options = {key: value for key, value in options_of(config.data).items() if key not in ("path", "data_dir")}
    said = {"name": data_name(config), "options": json.loads(json.dumps(options))}
    try:
        images = dataset(config)
    except InputError as error:  # who trains needs no more than the latents
        logging.warning(
            "the images are not at hand, so their number is not compared with that of the latents: %s", error
        )
        return said
    return said | {"count": len(images.images), "shape": [*images.facts.shape]}


def _moved(data):  # the same images, wherever their folder is
    return data | {"name": pathlib.PurePath(data["name"]).name}


def _words(data):
    options = "".join(f", {key} {value}" for key, value in data["options"].items())
    return f"{data['name']} ({data['count']} of shape {tuple(data['shape'])}{options})"


def data_name(config: ConfigDict) -> str:
    """A data set in a word or two, such as 'digits:train' or 'cifar10:train'."""
    options = options_of(config.data)
    name = options.get("dataset") or options.get("path", "").rstrip("/") or config.data.name
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
