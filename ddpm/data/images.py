"""A set of images and its facts, which come from the data and from nowhere else."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from ddpm.errors import InputError


@dataclasses.dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each channel of latents; they are (latents - mean) / std to a model.

    autoencoder: 16 hexadecimal digits, of the weights of the one that makes them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    autoencoder: str

    def down(self, latents: np.ndarray) -> np.ndarray:
        """(latents - mean) / std, float32 [..., channels]."""
        return (latents - np.float32(self.mean)) / np.float32(self.std)

    def up(self, scaled: np.ndarray) -> np.ndarray:
        """mean + std scaled: the latents again."""
        return np.float32(self.mean) + np.float32(self.std) * scaled


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model has to know of its data.

    shape: (height, width, channels).
    count: of the images.
    classes: their names.
    scale: of latents; None for images.
    """

    shape: tuple[int, int, int]
    count: int
    classes: tuple[str, ...]
    scale: Scale | None = None

    @classmethod
    def from_json(cls, values: dict) -> "Facts":
        """The facts in the record of a checkpoint."""
        scale = values.get("scale")
        scale = scale and Scale(tuple(scale["mean"]), tuple(scale["std"]), scale["autoencoder"])
        return cls(tuple(values["shape"]), values["count"], tuple(values["classes"]), scale)


class Labels(Sequence):
    """Labels as integers of 32 bits, read when asked."""

    def __init__(self, labels: Sequence | np.ndarray):
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> np.int32:
        return np.int32(self._labels[i])

    def __getitems__(self, indices: range) -> np.ndarray:
        """The labels at all of these, read at once where they can be."""
        read = getattr(self._labels, "__getitems__", lambda indices: [self._labels[i] for i in indices])
        return np.asarray(read(indices), np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images by random access: `images[i]` is uint8 [height, width, channels], of latents float32; `len(images)` their number.

    Args:
      images: a uint8 array [count, height, width, channels], or a sequence that reads image i when asked. Where
        to read an image costs more than to read its file, `digests()` yields the SHA-256 of what each is read from.
      classes: names of the classes; empty if there are none.
      labels: the class of each image, an index into `classes`; None where it is not known.
      captions: what each image shows, in words; None where nothing is said of any.
      scale: that latents were divided by; None for images.
    Raises:
      InputError: no images, images that are not uint8 of three dimensions, or another number of labels or captions.
    """

    images: Sequence | np.ndarray  # not Sequence[np.ndarray]: to check that, the tests would read an image
    classes: tuple[str, ...] = ()
    labels: Sequence | np.ndarray | None = None
    captions: Sequence[str] | None = None
    scale: Scale | None = None

    def __post_init__(self):
        if len(self.images) == 0:
            raise InputError("the data set holds no images.")
        for what, rows in (("labels", self.labels), ("captions", self.captions)):
            if rows is not None and len(rows) != len(self.images):
                raise InputError(f"{len(self.images)} images have {len(rows)} {what}; each needs one.")
        first = self.images[0]
        if first.dtype != (np.float32 if self.scale else np.uint8) or first.ndim != 3:
            raise InputError(
                f"images are {first.dtype} of shape {first.shape}; they must be uint8 [height, width, channels] in 0..255."
            )

    @property
    def facts(self) -> Facts:
        """Shape, count, classes and scale."""
        return Facts(self.images[0].shape, len(self.images), self.classes, self.scale)

    @property
    def nbytes(self) -> int:
        """Bytes of all images in memory."""
        return self.images[0].nbytes * len(self.images)

    @functools.cached_property
    def sha256(self) -> str:
        """16 hexadecimal digits of the SHA-256 of every image in its order: of its pixels, or by its `digests`."""
        digests = getattr(self.images, "digests", lambda: map(_digest, self.images))
        sha = hashlib.sha256(str(self.facts.shape).encode())
        for digest in digests():
            sha.update(digest)
        return sha.hexdigest()[:16]


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image)).digest()
