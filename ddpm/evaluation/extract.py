"""Features of images by a feature network: streamed over all devices, kept on disk piece by piece."""

import dataclasses
import functools
import hashlib
import operator
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ddpm import sharding
from ddpm.errors import InputError
from ddpm.evaluation import statistics
from ddpm.evaluation.chunks import Chunks
from ddpm.evaluation.drift import channel_sums, colours_of
from ddpm.evaluation.moments import Moments
from ddpm.evaluation.network import FeatureNetwork
from ddpm.evaluation.sharpness import sharpness
from ddpm.evaluation.sources import Source

CHUNK = 1024  # images whose features go to disk at once


class Pixels(NamedTuple):
    """What is known of the pixels: moments over all of them of their channels, in [0, 1], and their mean sharpness."""

    colours: Moments
    sharpness: float


class Features(Mapping):
    """Features by tap; those of all images are in memory only while they are used."""

    def __init__(self, chunks: Chunks, taps: Sequence[str], num: int):
        self._chunks, self._taps, self._num = chunks, taps, num

    def __getitem__(self, tap: str) -> np.ndarray:
        if tap not in self._taps:
            raise KeyError(tap)
        return np.concatenate(list(self.pieces(tap)))

    def __contains__(self, tap: object) -> bool:
        return tap in self._taps  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._taps)

    def __len__(self) -> int:
        return len(self._taps)

    def pieces(self, tap: str) -> Iterator[np.ndarray]:
        """The features of a tap, piece by piece."""
        return self._chunks.read(tap, 0, self._num)


@dataclasses.dataclass(frozen=True, eq=False)
class Extracted:
    """What metrics see of a set of images.

    about: its provenance.
    moments: tap of the network -> mean and covariance of the features.
    features: tap -> features, float32 [num, dims]; empty where only moments are known, as of most statistics files.
    known_pixels: None likewise.
    source: the images, for pictures; None likewise.
    """

    about: dict
    moments: Callable[[str], Moments]
    features: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    known_pixels: Pixels | None = None
    source: Source | None = None

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of the images; None where a file of statistics does not say."""
        shape = self.about.get("images", self.about).get("shape")
        return tuple(shape) if shape else None

    def with_images(self, images: "Extracted") -> "Extracted":
        """These moments, with the images, and what is known only from images, of another."""
        return dataclasses.replace(images, about=self.about | {"images": images.about}, moments=self.moments)

    def of(self, tap: str, metric: str) -> np.ndarray:
        """The features of a tap.

        Raises:
          InputError: only their moments are known.
        """
        if tap not in self.features:
            raise InputError(
                f"{metric} needs images or features; {self.about['name']} holds only their mean and covariance."
            )
        return self.features[tap]

    def pixels(self, metric: str) -> Pixels:
        """What is known of the pixels.

        Raises:
          InputError: nothing is.
        """
        if self.known_pixels is None:
            raise InputError(f"{metric} needs images; {self.about['name']} holds only features' statistics.")
        return self.known_pixels


def of_statistics(path: str | pathlib.Path, network: FeatureNetwork) -> Extracted:
    """The statistics of a file: mean and covariance, of some files the features.

    Raises:
      InputError: the file cannot be read, or it says that another network or another rule made it.
    """
    read = statistics.read(path)
    made_by = read.provenance.get("features", {})
    for key in ("name", "sha256", "rule"):
        if key in made_by and made_by[key] != getattr(network, key):
            raise InputError(
                f"{path} was made with {made_by['name']} ({key} {made_by[key]!r}), not with {network.name} "
                f"({getattr(network, key)!r}): figures against it would mean nothing. Choose the same feature network."
            )

    def moments(tap):
        if tap not in read.moments:
            raise InputError(f"{path} holds no statistics of '{tap}', only of {', '.join(read.moments)}.")
        return read.moments[tap]

    sha = hashlib.sha256(pathlib.Path(path).expanduser().read_bytes()).hexdigest()[:16]
    num = next((m.n for m in read.moments.values()), None)
    about = {"kind": "statistics", "name": str(path), "form": read.form, "num": num, "sha256": sha}
    if "images" in read.provenance:
        about["images"] = read.provenance["images"]
    features = {"pool": read.features.astype(np.float32)} if read.features is not None else {}
    return Extracted(about, moments, features)


def extract(
    source: Source,
    network: FeatureNetwork,
    taps: Sequence[str],
    *,
    batch_size: int,
    cache: pathlib.Path | None,
    progress: Callable[[str], None] = lambda line: None,
) -> Extracted:
    """Runs a feature network over images.

    Each batch is split over all devices, and no feature depends on the batch it is computed in. With a `cache` directory
    what is computed is kept there, and an interrupted extraction goes on where it stopped.

    Args:
      taps: which of the network's taps.
      batch_size: images at once, over all devices.
      progress: told a line now and then.
    Raises:
      InputError: the network has no such tap, or features are not finite.
    """
    missing = [tap for tap in taps if tap not in network.taps]
    if missing:
        raise InputError(f"feature network {network.name} has no '{missing[0]}', only {', '.join(network.taps)}.")
    name = "-".join([source.key, network.name, network.sha256, *taps])
    chunks = Chunks(cache / name if cache else None)
    first = chunks.rows(source.num)
    if first < source.num:
        run = _runner(network, taps, batch_size)
        pending: list[dict[str, np.ndarray]] = []
        for images in source.read(first):
            pending.append(run(images) | _of_pixels(images))
            if sum(len(rows["crc32"]) for rows in pending) >= CHUNK:
                _flush(chunks, pending, source)
                progress(
                    f"{chunks.rows(source.num)}/{source.num} images of {source.about['name']} seen by {network.name}"
                )
        if pending:
            _flush(chunks, pending, source)
    read = {name: np.concatenate(list(chunks.read(name, 0, source.num))) for name in PIXEL_ROWS}
    about = source.about | source.known_afterwards()
    about |= {"pixels_sha256": hashlib.sha256(read["crc32"].tobytes()).hexdigest()[:16]}
    pixels = Pixels(
        colours_of(read["sums"], read["products"], pixels=source.shape[0] * source.shape[1]),
        float(read["sharpness"].mean()),
    )
    features = Features(chunks, taps, source.num)
    moments = functools.cache(lambda tap: functools.reduce(operator.add, map(Moments.of, features.pieces(tap))))
    return Extracted(about, moments, features, pixels, source)


PIXEL_ROWS = ("crc32", "sums", "products", "sharpness")


def _of_pixels(images: np.ndarray) -> dict[str, np.ndarray]:
    sums, products = channel_sums(images)
    crc32 = np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32)
    return {"crc32": crc32, "sums": sums, "products": products, "sharpness": sharpness(images)}


def _flush(chunks, pending, source):
    rows = {name: np.concatenate([piece[name] for piece in pending]) for name in pending[0]}
    pending.clear()
    for name, values in rows.items():
        bad = int((~np.isfinite(values)).any(axis=tuple(range(1, values.ndim))).sum())
        if bad:
            raise InputError(f"'{name}' of {bad} of {len(values)} images of {source.about['name']} is not finite.")
    chunks.append(rows)


def _runner(network, taps, batch_size):
    mesh = sharding.data_mesh()
    size = -(-batch_size // mesh.size) * mesh.size
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)
    # Features come back whole on every process. Weights are arguments: as constants they would be folded for minutes.
    apply = jax.jit(
        lambda params, images: {tap: network.apply(params, images)[tap] for tap in taps},
        in_shardings=(replicated, split),
        out_shardings=replicated,
    )
    params = jax.device_put(network.params, replicated)

    def run(images):
        outputs = []
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            padded = np.concatenate([piece, np.zeros((size - len(piece), *piece.shape[1:]), np.uint8)])
            outputs.append(
                {tap: np.asarray(x)[: len(piece)] for tap, x in apply(params, jax.device_put(padded, split)).items()}
            )
        return {tap: np.concatenate([output[tap] for output in outputs]) for tap in taps}

    return run
