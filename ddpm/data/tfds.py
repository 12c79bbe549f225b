"""Any image set of TensorFlow Datasets, read without TensorFlow from its array_record form."""

import functools
import hashlib
import pathlib
import re
import socket
import textwrap
import urllib.request
from collections.abc import Iterator, Sequence
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from ddpm.data.crop import square
from ddpm.data.images import Dataset
from ddpm.errors import InputError, unknown_name

RECORDS = 1024  # read at once to be hashed
PORTS = {"http": 80, "ftp": 21}


class Records(Sequence):
    """Records of a TFDS data source, decoded when asked."""

    def __init__(self, source, size: int, path):
        self.source, self.size, self.path = source, size, path

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(i)  # ends `for image in images`
        return self.__getitems__(range(i, i + 1))[0]

    def __getitems__(self, indices: range) -> list[np.ndarray]:
        """The images of neighbouring records."""
        return [self._cut(record["image"]) for record in _read(self.source, indices, self.path)]

    def digests(self) -> Iterator[bytes]:
        """The SHA-256 of each record; none is decoded."""
        for first in range(0, len(self), RECORDS):
            records = _read(self.source.data_source, range(first, min(first + RECORDS, len(self))), self.path)
            yield from (hashlib.sha256(record).digest() for record in records)

    def _cut(self, image):
        if not self.size:
            return image
        grey = image.shape[-1] == 1
        return square(Image.fromarray(image.squeeze(-1) if grey else image), self.size, 1 if grey else 3)


class Labels(Sequence):
    """The labels of a TFDS data source; no image is decoded to read one."""

    def __init__(self, builder, split: str, count: int):
        self.builder, self.split, self.count = builder, split, count

    def __len__(self) -> int:
        return self.count

    @functools.cached_property
    def _source(self):
        from tensorflow_datasets.core.decode import SkipDecoding  # half a second

        return self.builder.as_data_source(split=self.split, decoders={"image": SkipDecoding()})

    def __getitem__(self, i: int) -> int:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.__getitems__(range(i, i + 1))[0]

    def __getitems__(self, indices: range) -> list[int]:
        """The labels of neighbouring records."""
        return [int(record["label"]) for record in _read(self._source, indices, self.builder.data_path)]


def _read(source, indices: range, path) -> list:
    """Records of a set that is prepared at a path."""
    try:
        # Many together take half of the time, one alone in that way twice.
        return source.__getitems__(indices) if len(indices) > 1 else [source[indices[0]]]
    except (RuntimeError, OSError) as error:  # RuntimeError is array_record's
        first, last = indices[0], indices[-1]
        what = f"record {first}" if first == last else f"one of records {first} to {last}"
        raise InputError(
            f"{what} in {path} cannot be read ({_line(error)}). Remove that folder and run the same command with "
            "--mode prepare."
        ) from error


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
    if size < 0:
        raise InputError(
            f"size = {size}: --config.data.tfds.size must be at least 1, or 0 to leave the images as they are."
        )
    builder = _builder(dataset, data_dir)
    if not _is_prepared(builder):
        raise InputError(
            f"data set {dataset!r} is not prepared in {builder.data_path}. "
            "Run the same command with --mode prepare, or give --config.data.tfds.data_dir."
        )
    features, splits = builder.info.features, builder.info.splits
    if "image" not in features:
        raise InputError(f"data set {dataset!r} has no feature 'image', only {', '.join(features)}.")
    image = features["image"]
    if image.np_dtype != np.uint8 or len(image.shape) != 3:
        raise InputError(f"feature 'image' of {dataset!r} is {image}; it must be uint8 [height, width, channels].")
    if not size and None in image.shape:
        raise InputError(f"images of {dataset!r} differ in size: give --config.data.tfds.size, such as 64.")
    for part in split.split("+"):
        if part.split("[")[0] not in (*splits, "all"):
            raise unknown_name(f"split of {dataset}", part, splits)
    try:
        source = builder.as_data_source(split=split)
        len(source)  # negative for train[5:3]
    except ValueError as error:
        counts = ", ".join(f"{name} {info.num_examples}" for name, info in splits.items())
        raise InputError(
            f"split {split!r} of {dataset} is empty or malformed ({_line(error)}). "
            f"Write it like 'train[:90%]'; images: {counts}."
        ) from error
    classes = features["label"].names if "label" in features and hasattr(features["label"], "names") else ()
    labels = Labels(builder, split, len(source)) if classes else None
    return Dataset(Records(source, size, builder.data_path), tuple(classes), labels)


def prepare(*, dataset: str, data_dir: str) -> str:
    """Downloads a TFDS set and prepares it as array_record; returns a sentence that says where it is.

    Raises:
      InputError: an unknown set, no connection to its hosts, no TensorFlow, which many sets need to be prepared, or
        whatever else TFDS stumbles over.
    """
    builder = _builder(dataset, data_dir)
    if _is_prepared(builder):
        return f"{dataset} is prepared in {builder.data_path}"
    _check_online(dataset, builder)
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # each of the hundreds of sets has its own
        if isinstance(error, ImportError) and re.search(r"\btensorflow\b", str(error)):
            raise InputError(
                f"TFDS needs TensorFlow to prepare {dataset}: pip install 'ddpm[prepare]'. "
                "Training does not need it, so another environment may prepare the set."
            ) from error
        raise InputError(f"TFDS could not prepare {dataset}: {type(error).__name__}: {_line(error)}") from error
    return f"{dataset} is prepared in {builder.data_path}"


def _builder(dataset: str, data_dir: str):
    import tensorflow_datasets  # half a second, and GPU images may lack it

    root = pathlib.Path(data_dir).expanduser()
    name = re.split("[/:]", dataset)[0]
    # To list those of the community asks the network and TensorFlow.
    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    if name not in known and not (name and (root / name).is_dir()):
        raise unknown_name("TFDS data set", dataset, known)
    try:
        return tensorflow_datasets.builder(dataset, data_dir=root)
    except Exception as error:  # of many kinds, for a wrong config or version or a broken file
        raise InputError(f"TFDS cannot open {dataset!r} in {root}: {_line(error)}") from error


def _is_prepared(builder) -> bool:
    if not builder.data_path.exists():
        return False
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if not builder.is_prepared() or "array_record" not in formats:
        found = f"a set in the format {', '.join(sorted(formats))}" if builder.is_prepared() else "no complete set"
        raise InputError(
            f"{builder.data_path} holds {found}, not one in array_record. Remove that folder or choose another "
            "--config.data.tfds.data_dir, and run the same command with --mode prepare."
        )
    return True


def _check_online(dataset: str, builder) -> None:
    # TFDS retries for over three minutes when offline; five seconds are enough to know.
    urls = [url for url in map(urlparse, builder.url_infos or ()) if url.hostname]
    addresses = sorted({(url.hostname, url.port or PORTS.get(url.scheme, 443)) for url in urls})
    if not addresses or urllib.request.getproxies():
        return None
    for address in addresses:  # some are of old versions, so one that answers is enough
        try:
            return socket.create_connection(address, timeout=5).close()
        except OSError as problem:
            error = problem
    hosts = ", ".join(sorted({host for host, _ in addresses}))
    raise InputError(
        f"{dataset} is downloaded from {hosts}, which cannot be reached ({error}). "
        f"Connect, or copy a prepared set to {builder.data_path}."
    ) from error


def _line(error: Exception) -> str:
    return textwrap.shorten(str(error), 600, placeholder=" ...")  # some hold a whole example
