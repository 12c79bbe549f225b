"""Inception-v3 of 2015-12-05, whose features FID, KID, sFID and the Inception Score are made of; for inference alone."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm.models.rgb import three_channels
from ddpm.shapes import Images, Pixels

SIZE = 299
SPATIAL = ("Mixed_6d.branch1x1", 7)  # 'mixed_6/conv' of the TensorFlow graph, and its channels that sFID takes


class Conv(NamedTuple):
    """A convolution and its ReLU; the batch norm between them is folded into it."""

    features: int
    height: int = 1
    width: int = 1
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """A pool of 3 x 3: 'average', which does not count the padding, or 'max'."""

    of: str
    stride: int = 1


AVERAGE, MAX, SHRINK = Pool("average"), Pool("max"), Pool("max", 2)
FORK = {"a": Conv(384, 1, 3), "b": Conv(384, 3, 1)}  # side by side
STEM = {
    "Conv2d_1a_3x3": Conv(32, 3, 3, 2, "VALID"),
    "Conv2d_2a_3x3": Conv(32, 3, 3, 1, "VALID"),
    "Conv2d_2b_3x3": Conv(64, 3, 3),
    "MaxPool_1": SHRINK,
    "Conv2d_3b_1x1": Conv(80),
    "Conv2d_4a_3x3": Conv(192, 3, 3, 1, "VALID"),
    "MaxPool_2": SHRINK,
}


def _mixed_5(pool):
    return (
        {"branch1x1": Conv(64)},
        {"branch5x5_1": Conv(48), "branch5x5_2": Conv(64, 5, 5)},
        {"branch3x3dbl_1": Conv(64), "branch3x3dbl_2": Conv(96, 3, 3), "branch3x3dbl_3": Conv(96, 3, 3)},
        {"pool": AVERAGE, "branch_pool": Conv(pool)},
    )


def _mixed_6(n):
    return (
        {"branch1x1": Conv(192)},
        {"branch7x7_1": Conv(n), "branch7x7_2": Conv(n, 1, 7), "branch7x7_3": Conv(192, 7, 1)},
        {
            "branch7x7dbl_1": Conv(n),
            "branch7x7dbl_2": Conv(n, 7, 1),
            "branch7x7dbl_3": Conv(n, 1, 7),
            "branch7x7dbl_4": Conv(n, 7, 1),
            "branch7x7dbl_5": Conv(192, 1, 7),
        },
        {"pool": AVERAGE, "branch_pool": Conv(192)},
    )


def _mixed_7(pool):
    return (
        {"branch1x1": Conv(320)},
        {"branch3x3_1": Conv(384), "branch3x3_2": FORK},
        {"branch3x3dbl_1": Conv(448), "branch3x3dbl_2": Conv(384, 3, 3), "branch3x3dbl_3": FORK},
        {"pool": pool, "branch_pool": Conv(192)},
    )


BLOCKS = {  # branches of one input, side by side; the layers of a branch one after the other
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": (
        {"branch3x3": Conv(384, 3, 3, 2, "VALID")},
        {
            "branch3x3dbl_1": Conv(64),
            "branch3x3dbl_2": Conv(96, 3, 3),
            "branch3x3dbl_3": Conv(96, 3, 3, 2, "VALID"),
        },
        {"pool": SHRINK},
    ),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": (
        {"branch3x3_1": Conv(192), "branch3x3_2": Conv(320, 3, 3, 2, "VALID")},
        {
            "branch7x7x3_1": Conv(192),
            "branch7x7x3_2": Conv(192, 1, 7),
            "branch7x7x3_3": Conv(192, 7, 1),
            "branch7x7x3_4": Conv(192, 3, 3, 2, "VALID"),
        },
        {"pool": SHRINK},
    ),
    "Mixed_7b": _mixed_7(AVERAGE),
    "Mixed_7c": _mixed_7(MAX),  # a slip of 2015, by which FID is defined
}


class InceptionV3(nn.Module):
    """Bytes of any size to {'pool': [batch, 2048], 'spatial': [batch, 2023], 'logits': [batch, classes]}.

    The network begins with its own resize to 299 x 299 and (x - 128) / 128. The logits are those of the Inception Score:
    without their bias. Layers bear the names of torchvision.

    Args:
      classes: of the class head, 1008 in the published file; 0 where there is none, and no logits.

    Szegedy et al. 2016, with the pools that Heusel et al. 2017 used; 'spatial' of Nash et al. 2021, section 4.
    """

    classes: int = 0

    @nn.compact
    def __call__(self, pixels: Pixels) -> dict[str, Float[Array, "batch dims"]]:
        def layer(x, name, kind):
            if isinstance(kind, Pool):
                return pool(x, kind)
            if isinstance(kind, dict):
                return jnp.concatenate([layer(x, name + side, conv) for side, conv in kind.items()], axis=-1)
            conv = nn.Conv(
                kind.features,
                (kind.height, kind.width),
                kind.stride,
                kind.padding,
                precision=jax.lax.Precision.HIGHEST,
                name=name,
            )
            y = nn.relu(conv(x))
            if name == SPATIAL[0]:
                taps["spatial"] = y[..., : SPATIAL[1]].reshape(len(y), -1)
            return y

        taps = {}
        x = (resize_as_tensorflow_1(three_channels(pixels), SIZE) - 128) / 128
        for name, kind in STEM.items():
            x = layer(x, name, kind)
        for block, branches in BLOCKS.items():
            outputs = []
            for branch in branches:
                y = x
                for name, kind in branch.items():
                    y = layer(y, f"{block}.{name}", kind)
                outputs.append(y)
            x = jnp.concatenate(outputs, axis=-1)
        taps["pool"] = jnp.mean(x, axis=(1, 2))
        if self.classes:
            head = nn.Dense(self.classes, use_bias=False, precision=jax.lax.Precision.HIGHEST, name="fc")
            taps["logits"] = head(taps["pool"])
        return taps


def pool(x: Images, kind: Pool) -> Float[Array, "batch rows columns channels"]:
    """A pool of features that are not negative, one axis after the other by slices: on CPU faster than XLA's windows."""
    combine = jnp.maximum if kind.of == "max" else jnp.add
    for axis in (1, 2):
        if kind.stride == 1:
            x = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])
        last = (x.shape[axis] - 3) // kind.stride * kind.stride
        first, second, third = (jax.lax.slice_in_dim(x, i, i + last + 1, kind.stride, axis) for i in range(3))
        x = combine(combine(first, second), third)
    if kind.of == "max":
        return x
    counted = [np.convolve(np.ones(n), np.ones(3), "same") for n in x.shape[1:3]]
    return x / jnp.asarray(np.outer(*counted), jnp.float32)[None, :, :, None]


def resize_as_tensorflow_1(images: Images, size: int) -> Float[Array, "batch {size} {size} channels"]:
    """Bilinear interpolation at i * height / size, with no half pixels and no filter: ResizeBilinear of TensorFlow 1."""
    for axis in (1, 2):
        n = images.shape[axis]
        position = np.arange(size, dtype=np.float32) * np.float32(n / size)
        lower = position.astype(int)
        weight = jnp.asarray(np.expand_dims(position - lower, [i for i in range(4) if i != axis]), jnp.float32)
        below, above = (jnp.take(images, np.minimum(i, n - 1), axis) for i in (lower, lower + 1))
        images = below + (above - below) * weight
    return images
