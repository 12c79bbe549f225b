"""Files that were cut, bent or made to harm: each is refused in a line, and nothing in them runs."""

import io
import json
import pickle
import sys

import numpy as np
import pytest
import torch_files
from data_sets import mistake
from safetensors.numpy import load_file, save_file
from test_import import STATE

from ddpm.errors import InputError
from ddpm.imports import import_run
from ddpm.interop import dit_file, plain_pickle, state_dicts, torch_file, weight_file

FLAGS = "--image_size 8 --num_heads 1 --use_new_attention_order False --noise_schedule linear --diffusion_steps 1000"
UNET = {name: np.ones(shape, np.float32) for name, shape in STATE.items()}
UNET |= {
    "time_embed.0.weight": np.ones((32, 8), np.float32),
    "input_blocks.1.0.out_layers.3.weight": np.ones((8, 8, 3, 3), np.float32),
    "input_blocks.1.0.emb_layers.1.weight": np.ones((8, 32), np.float32),
    "out.2.weight": np.ones((3, 8, 3, 3), np.float32),
}
DIT = {
    "t_embedder.mlp.0.weight": np.ones((16, 8), np.float32),
    "x_embedder.proj.weight": np.ones((16, 4, 2, 2), np.float32),
    "pos_embed": dit_file._positions(2, 16)[None].astype(np.float32),
    "final_layer.linear.weight": np.ones((16, 16), np.float32),
    "y_embedder.embedding_table.weight": np.ones((3, 16), np.float32),
    "blocks.0.attn.qkv.weight": np.ones((48, 16), np.float32),
}


class Reduced:
    """Pickles as a call of a function, and a state that it is then given."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


OF_OBJECTS = Reduced(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
SCALAR, RECONSTRUCT = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
ADDRESSES = {  # bytes that NumPy would take for the address of an object
    "scalar": Reduced(SCALAR, (OF_OBJECTS, b"AAAAAAAA")),
    "scalar of objects": Reduced(SCALAR, (np.dtype("O"), b"AAAAAAAA")),
    "constructed": Reduced(np.ndarray, ((1,), OF_OBJECTS, b"AAAAAAAA")),
    "state": Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), OF_OBJECTS, False, b"AAAAAAAA")),
    "state of a list": Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, [b"A"])),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("value", ADDRESSES.values(), ids=ADDRESSES)
def test_no_number_of_a_pickle_is_taken_for_an_address(value, protocol):
    with pytest.raises((ValueError, TypeError, plain_pickle.Refused)):
        repr(plain_pickle.read(io.BytesIO(pickle.dumps({"a": value}, protocol))))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i8", "|b1", "|u1", "<U3", "|S2", "<c8"])
def test_plain_arrays_and_numbers_come_as_they_were(dtype, protocol):
    wanted = {"a": np.arange(6).reshape(2, 3).astype(dtype), "b": np.arange(1, 3).astype(dtype)[1]}
    wanted["f"] = np.asfortranarray(wanted["a"])
    found = plain_pickle.read(io.BytesIO(pickle.dumps(wanted, protocol)))
    for name, array in wanted.items():
        assert found[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)


def test_what_a_storage_is_named_by_is_not_shown(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", [1], "key", "cpu", 1) if value == "tensor" else None

    file = io.BytesIO()
    Pickler(file, 2).dump({"a": "tensor"})
    path = torch_files.write(tmp_path / "model.pt", file.getvalue()[2:-1], {})
    assert "its pickle refers to what is no storage" in mistake(torch_file.read, path)


def test_lists_that_hold_one_list_many_times_are_opened_once(tmp_path):
    value = [np.float64(1)]
    for _ in range(40):
        value = [value, value]
    path = torch_files.write(tmp_path / "model.pt", torch_files.literal({"a": value}), {})
    assert mistake(torch_file.read, path).startswith(f"{path} holds no tensors.")


def test_a_configuration_that_is_too_deep_is_refused(tmp_path):
    depth = 10 * sys.getrecursionlimit()
    (tmp_path / "config.json").write_text("[" * depth + "]" * depth)
    assert mistake(import_run, str(tmp_path), tmp_path / "run", None, "").startswith(f"{tmp_path}/config.json ")


@pytest.mark.parametrize("network", ["unet", "dit"])
def test_arrays_that_are_missing_or_of_any_other_shape_are_told_of(tmp_path, network):
    arrays, flags = (UNET, FLAGS) if network == "unet" else (DIT, "--num_heads 2")
    whole = weight_file.Arrays(arrays, tmp_path / "whole.pt")
    assert state_dicts.read(torch_files.save(whole.file, whole), flags, False).model == network
    bent = [{name: array for name, array in arrays.items() if name != left} for left in arrays]
    for name, array in arrays.items():
        shapes = [(), (5,), (array.size,), array.shape[1:], (*array.shape[:-1], 7), (5, *array.shape[1:])]
        bent += [arrays | {name: np.ones(shape, np.float32)} for shape in shapes]
    for i, case in enumerate(bent):
        file = torch_files.save(tmp_path / f"{i}.pt", case)
        with pytest.raises(InputError) as caught:
            import_run(str(file), tmp_path / "run", None, flags)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("array", "wrong"),
    [(np.ones((8, 8), np.int64), "is of int64, and weights"), (np.full((8, 8), np.nan, np.float32), "not finite")],
)
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_are_finite_floats(tmp_path, kind, array, wrong):
    file = tmp_path / f"weights.{kind}"
    if kind == "pt":
        torch_files.save(file, {"a": array})
    else:
        save_file({"a": array}, file)
        assert "a" in load_file(file)
    assert wrong in mistake(weight_file.read, file)


def test_a_flag_that_says_other_than_the_shapes_is_refused(tmp_path):
    file = torch_files.save(tmp_path / "model.pt", UNET)
    told = mistake(import_run, str(file), tmp_path / "run", None, f"{FLAGS} --learn_sigma True")
    assert told == f"--trained_with: --learn_sigma True, but in {file} it is False: these flags are of another."


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ("--sigma_small True", "sampler.ancestral.variance", "posterior"),
        ("--sigma_small False", "sampler.ancestral.variance", "beta"),
        ("--predict_xstart True", "prediction.name", "x0"),
        ("", "prediction.name", "eps"),
        ("", "schedule.linear.beta_T", 0.02),
    ],
)
def test_what_the_flags_of_openai_mean(tmp_path, more, key, value):
    file = torch_files.save(tmp_path / "model.pt", UNET)
    assert state_dicts.read(file, f"{FLAGS} {more}", False).settings[key] == value


def test_the_published_dit_was_trained_on_the_linear_schedule(tmp_path):
    settings = state_dicts.read(torch_files.save(tmp_path / "model.pt", DIT), "--num_heads 2", False).settings
    assert json.dumps([settings[f"schedule.linear.beta_{t}"] for t in "1T"]) == "[0.0001, 0.02]"
    assert settings["schedule.T"] == 1000 and settings["prediction.name"] == "eps"
