"""Any image set of TensorFlow Datasets, read without TensorFlow from its array_record form."""

import pathlib
import socket
from collections.abc import Sequence
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from ddpm.data.crop import square
from ddpm.data.dataset import Dataset
from ddpm.errors import InputError, unknown_name


class Records(Sequence):
    """Records of a TFDS data source, decoded when asked."""

    def __init__(self, source, size: int):
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> np.ndarray:
        image = self.source[i]["image"]
        if not self.size:
            return image
        return square(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), self.size, image.shape[-1])


def tfds(*, dataset: str, split: str = "train", data_dir: str = "~/tensorflow_datasets", size: int = 0) -> Dataset:
    """A prepared TFDS image set. Nothing is downloaded: `--mode prepare` does that.

    Args:
      dataset: its TFDS name, such as 'cifar10'.
      split: a TFDS split, such as 'train' or 'train[:90%]'.
      data_dir: where sets are prepared.
      size: resize and centre-crop to size x size; 0 leaves the images as they are, which must be of one size.
    Raises:
      InputError: an unknown set or split, one without images, one that is not prepared, or one that needs `size`.
    """
    builder = _builder(dataset, data_dir)
    if not builder.is_prepared():
        raise InputError(
            f"data set {dataset!r} is not prepared in {builder.data_path}. "
            "Run the same command with --mode prepare, or give --config.data.tfds.data_dir."
        )
    feature = builder.info.features.get("image")
    if feature is None:
        raise InputError(f"data set {dataset!r} has no feature 'image', only {', '.join(builder.info.features)}.")
    if not size and None in feature.shape:
        raise InputError(f"images of {dataset!r} differ in size: give --config.data.tfds.size, such as 64.")
    if split.split("[")[0] not in builder.info.splits:
        raise unknown_name(f"split of {dataset}", split, builder.info.splits)
    classes = getattr(builder.info.features.get("label"), "names", ())
    return Dataset(Records(builder.as_data_source(split=split), size), tuple(classes))


def prepare(*, dataset: str, data_dir: str) -> str:
    """Downloads a TFDS set and prepares it as array_record; returns a sentence that says where it is.

    Raises:
      InputError: an unknown set, no connection to its host, or no TensorFlow, which many sets need to be prepared.
    """
    builder = _builder(dataset, data_dir)
    if builder.is_prepared():
        return f"{dataset} is prepared in {builder.data_path}"
    # TFDS retries for over three minutes when offline; five seconds are enough to know.
    for host in sorted({urlparse(url).hostname for url in builder.url_infos}):
        try:
            socket.create_connection((host, 443), timeout=5).close()
        except OSError as error:
            raise InputError(
                f"{dataset} is downloaded from {host}, which cannot be reached ({error}). Connect, or copy a prepared "
                f"set to {builder.data_path}."
            ) from error
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise InputError(
            f"TFDS needs TensorFlow to prepare {dataset}: pip install 'ddpm[prepare]' ({error}). "
            "Training does not need it, so another environment may prepare the set."
        ) from error
    return f"{dataset} is prepared in {builder.data_path}"


def _builder(dataset: str, data_dir: str):
    import tensorflow_datasets  # half a second, and GPU images may lack it

    data_dir = pathlib.Path(data_dir).expanduser()
    try:
        return tensorflow_datasets.builder(dataset, data_dir=data_dir, file_format="array_record")
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise unknown_name("TFDS data set", dataset, tensorflow_datasets.list_builders()) from error
