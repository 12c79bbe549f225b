"""Files of PyTorch read without it; against PyTorch itself: tests/parity/test_features.py."""

import pickle

import ml_dtypes
import numpy as np
import pytest
import torch_files
from data_sets import mistake

from ddpm.interop import torch_file

ROW = np.arange(6, dtype=np.float32)


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
