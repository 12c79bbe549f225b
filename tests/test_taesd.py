"""Files of the TAESD family: what is no TAESD is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_sets import mistake
from safetensors.numpy import save_file

from ddpm import autoencoders
from ddpm.interop import taesd
from ddpm.models.autoencoders.taesd import Taesd


@pytest.fixture(autouse=True)
def read_anew():
    autoencoders.read.cache_clear()


def sides(channels=4, latent_channels=2):
    """The arrays of both files of a small one, by their published names, from parameters of ours."""
    network = Taesd(latent_channels, channels)
    params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    for side in ("encoder", "decoder"):
        arrays = {}
        for layer, inner in params[side].items():
            for name, leaves in [("", inner)] if "kernel" in inner else inner.items():
                prefix = f"{layer}.{name.replace('_', '.')}." if name else f"{layer}."
                arrays[f"{prefix}weight"] = np.ascontiguousarray(np.transpose(leaves["kernel"], (3, 2, 0, 1)))
                if "bias" in leaves:
                    arrays[f"{prefix}bias"] = np.asarray(leaves["bias"])
        yield side, arrays


def written(folder, change=lambda side, arrays: None):
    for side, arrays in sides():
        change(side, arrays)
        save_file(arrays, folder / f"small_{side}.safetensors")
    return folder


def told(folder):
    return mistake(autoencoders.read, str(folder)).removesuffix(f" {taesd.REMEDY}")


def test_a_folder_is_read_and_images_come_back_in_their_size(tmp_path):
    read = autoencoders.read(str(written(tmp_path)))
    assert (read.factor, read.channels, read.colours, read.scale) == (8, 2, 3, None)
    z = read.encode(read.params, jnp.zeros((1, 16, 24, 3)))
    assert z.shape == (1, 2, 3, 2) and read.decode(read.params, z).shape == (1, 16, 24, 3)


def test_nothing_there(tmp_path):
    assert told(tmp_path) == f"no autoencoder in {str(tmp_path)!r}."
    assert told(tmp_path / "nowhere").startswith(
        f"no autoencoder at {str(tmp_path / 'nowhere')!r}: give the workdir of one "
    )


def test_a_truncated_file(tmp_path):
    file = written(tmp_path) / "small_decoder.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert told(tmp_path).startswith(f"{file} cannot be read (") and told(tmp_path).endswith(" Copy it again.")


@pytest.mark.parametrize(
    ("side", "name", "array", "message"),
    [
        (
            "encoder",
            "14.weight",
            None,
            "{folder}/small_encoder.safetensors is of no TAESD: it holds no layer 'kernel'.",
        ),
        (
            "decoder",
            "8.conv.2.bias",
            None,
            "{folder} is of no TAESD: it holds nothing at decoder/8/conv_2/bias, and (4,) is needed.",
        ),
        (
            "encoder",
            "3.conv.0.weight",
            np.zeros((4, 5, 3, 3), np.float32),
            "{folder} is of no TAESD: it holds (3, 3, 5, 4) at encoder/3/conv_0/kernel, and (3, 3, 4, 4) is needed.",
        ),
        (
            "decoder",
            "20.weight",
            np.zeros((4, 4, 3, 3), np.float32),
            "{folder} is of no TAESD: it holds (3, 3, 4, 4) at decoder/20/kernel, and nothing is needed.",
        ),
        (
            "decoder",
            "conv_in.weight",
            np.zeros((4, 4, 3, 3), np.float32),
            "{folder}/small_decoder.safetensors is of no TAESD: it holds 'conv_in.weight'.",
        ),
    ],
)
def test_another_network(tmp_path, side, name, array, message):
    def change(which, arrays):
        if which == side:
            arrays.pop(name, None)
            if array is not None:
                arrays[name] = array

    assert told(written(tmp_path, change)) == message.format(folder=tmp_path)
