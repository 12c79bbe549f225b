"""Data sets and batches: what is read is what was written, and each epoch holds each image once."""

import functools
import gc
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets
from conftest import REPO
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from tensorflow_datasets import features

from ddpm.data.digits import digits
from ddpm.data.folder import folder
from ddpm.data.images import Dataset, Facts
from ddpm.data.npz import npz
from ddpm.data.pipeline import feed, grain_batches, in_memory, mirrored, permuted, shuffled_indices
from ddpm.data.tfds import prepare, tfds
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.training import sharding


def mistake(function, *args, **options) -> str:
    """What the user is told: one line."""
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_a_set(images):
    """Images in an order that depends on nothing but themselves."""
    return sorted(np.asarray(image).tobytes() for image in images)


# Any data set


def test_a_data_set_of_no_images_or_of_others_than_bytes_is_refused():
    assert mistake(Dataset, images=noise(0, 0, 8, 8, 3)) == "the data set holds no images."
    assert mistake(Dataset, images=np.zeros((2, 8, 8, 3), np.float32)) == (
        "images are float32 of shape (8, 8, 3); they must be uint8 [height, width, channels] in 0..255."
    )
    assert mistake(Dataset, images=noise(0, 2, 8, 8)) == (
        "images are uint8 of shape (8, 8); they must be uint8 [height, width, channels] in 0..255."
    )


def test_images_read_one_by_one_come_into_memory_in_their_order(pictures):
    read = folder(path=str(pictures), size=8)
    assert read.nbytes == in_memory(read).nbytes == 5 * 8 * 8 * 3
    np.testing.assert_array_equal(in_memory(read), list(read.images))


# scikit-learn's digits


def test_digits_are_those_of_scikit_learn_each_in_one_split():
    train, test = digits(split="train"), digits(split="test")
    classes = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert train.facts == Facts((8, 8, 1), 1500, classes)
    assert test.facts == Facts((8, 8, 1), 297, classes)
    both = np.concatenate([train.images, test.images])[..., 0]
    assert (both.min(), both.max()) == (0, 255)
    sixteenths = both / 255 * 16  # scikit-learn counts 0..16
    assert np.abs(sixteenths - np.round(sixteenths)).max() < 0.04  # half a byte is 0.031
    assert as_a_set(np.round(sixteenths)) == as_a_set(load_digits().images)


def test_an_unknown_split_of_digits_names_the_nearest():
    assert mistake(digits, split="tain") == (
        "unknown split of digits 'tain'. Did you mean 'train'? Known: test, train."
    )


# .npz files


@pytest.fixture(autouse=True)
def no_collection():
    """JAX's callback of the garbage collector upsets CPython 3.11's parser, which NumPy reads array headers with."""
    gc.disable()
    yield
    gc.enable()


def test_npz_reads_colour_and_grey(tmp_path):
    colour, grey = noise(0, 5, 6, 7, 3), noise(1, 4, 6, 7)
    np.savez(tmp_path / "a.npz", colour, grey=grey)
    np.savez_compressed(tmp_path / "b.npz", grey)
    read = npz(path=str(tmp_path / "a.npz"))
    assert read.facts == Facts((6, 7, 3), 5, ())
    np.testing.assert_array_equal(read.images, colour)
    for path, array in (("a.npz", "grey"), ("b.npz", "arr_0")):
        read = npz(path=str(tmp_path / path), array=array)
        assert read.facts == Facts((6, 7, 1), 4, ())
        np.testing.assert_array_equal(read.images[..., 0], grey)


def test_npz_and_folder_know_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", noise(0, 5, 6, 7, 3))
    Image.fromarray(noise(0, 9, 9, 3)).save(tmp_path / "a.png")
    assert npz(path="~/a.npz").facts.count == 5
    assert folder(path="~", size=8).facts.count == 1


def test_npz_says_what_is_missing(tmp_path):
    path = str(tmp_path / "a.npz")
    assert mistake(npz, path=path) == f"no file '{path}': give the .npz file with --config.data.npz.path=FILE."
    np.savez(path, images=noise(0, 5, 6, 7, 3), labels=np.arange(5))
    assert mistake(npz, path=path) == (
        f"unknown array in {path} (--config.data.npz.array) 'arr_0'. Known: images, labels."
    )
    assert mistake(npz, path=path, array="image") == (
        f"unknown array in {path} (--config.data.npz.array) 'image'. Did you mean 'images'? Known: images, labels."
    )


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((5, 6, 7, 3), np.float32), "float32 of shape (5, 6, 7, 3)"),
        (np.zeros((5, 6, 7), np.int64), "int64 of shape (5, 6, 7)"),
        (np.zeros((6, 7), np.uint8), "uint8 of shape (6, 7)"),
        (np.zeros((2, 5, 6, 7, 3), np.uint8), "uint8 of shape (2, 5, 6, 7, 3)"),
        (np.uint8(3), "uint8 of shape ()"),
    ],
)
def test_npz_refuses_what_are_no_images(tmp_path, array, what):
    path = str(tmp_path / "a.npz")
    np.savez(path, array)
    assert mistake(npz, path=path) == (
        f"array 'arr_0' of {path} is {what}; images must be uint8 in 0..255, "
        "[count, height, width] or [count, height, width, channels]."
    )


def test_npz_refuses_other_files(tmp_path):
    def told(reason):
        return f"{path} cannot be read as a .npz file of images ({reason}). Write or copy it again."

    path = tmp_path / "a.npz"
    np.savez(path, noise(0, 5, 6, 7, 3))
    whole = path.read_bytes()
    np.save(tmp_path / "a.npy", noise(0, 5, 6, 7, 3))
    for content in (b"", b"P", b"no zip file", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        assert mistake(npz, path=str(path)) == told("File is not a zip file")
    path.write_bytes((tmp_path / "a.npy").read_bytes())
    assert mistake(npz, path=str(path)) == told("File is not a zip file")
    np.savez(path, np.array([1, "a"], object))
    assert mistake(npz, path=str(path)) == told("Object arrays cannot be loaded when allow_pickle=False")
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 9]) + whole[middle + 9 :])
    assert mistake(npz, path=str(path)) == told("Bad CRC-32 for file 'arr_0.npy'")


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), compress=st.booleans())
def test_a_broken_byte_in_npz_is_never_a_traceback(tmp_path_factory, place, byte, compress):
    path = tmp_path_factory.getbasetemp() / "broken.npz"
    (np.savez_compressed if compress else np.savez)(path, noise(0, 3, 4, 4, 3))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        assert npz(path=str(path)).images.dtype == np.uint8
    except InputError as error:
        assert str(path) in str(error)


# Folders


RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@pytest.fixture
def pictures(tmp_path):
    """Five images of three classes, one of them outside, and what is no image."""
    root = tmp_path / "pictures"
    (root / "cat" / "young").mkdir(parents=True)
    (root / "dog").mkdir()
    for i, name in enumerate(("cat/1.PNG", "cat/young/2.png", "dog/3.bmp", "dog/4.webp", "5.tiff")):
        Image.fromarray(noise(i, 9 + i, 12, 3)).save(root / name)
    (root / "bird").mkdir()
    (root / "cat" / "names.txt").write_text("no image")
    (root / "about.pdf").write_bytes(b"%PDF-1.4")
    (root / "features.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (root / "folder.png").mkdir()
    return root


def one_image(tmp_path, image, name="image.png", **options):
    """What `folder` makes of one image."""
    image.save(tmp_path / name)
    (pixels,) = folder(path=str(tmp_path), **options).images
    (tmp_path / name).unlink()
    return pixels


def test_a_class_is_a_folder_with_images_and_other_files_are_passed_over(pictures):
    assert folder(path=str(pictures), size=8).facts == Facts((8, 8, 3), 5, ("cat", "dog"))
    assert folder(path=str(pictures / "cat"), size=4, channels=1).facts == Facts((4, 4, 1), 2, ("young",))
    assert folder(path=str(pictures / "dog"), size=4).facts == Facts((4, 4, 3), 2, ())


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_of_an_image_is_kept(tmp_path, turned):
    wide = np.full((20, 60, 3), RED, np.uint8)
    wide[:, 20:40] = BLUE
    image = Image.fromarray(wide.swapaxes(0, 1) if turned else wide)
    assert (one_image(tmp_path, image, size=20) == BLUE).all()
    for size in (10, 50):  # the red beside it shines through at the border, as in the whole image resized
        pixels = one_image(tmp_path, image, size=size)
        border = size // 3
        assert pixels.shape == (size, size, 3)
        assert (pixels[border:-border, border:-border] == BLUE).all() and (pixels[..., 2] > pixels[..., 0]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_the_shorter_side_is_resized_whole(tmp_path, turned):
    wide = noise(0, 40, 80, 3)
    wide[:20, :40, 0], wide[:20, 40:, 1], wide[20:, :40, 2] = 0, 0, 0
    whole = Image.fromarray(wide).resize((16, 8), Image.Resampling.LANCZOS)
    middle = np.asarray(whole)[:, 4:12].astype(int)
    pixels = one_image(tmp_path, Image.fromarray(wide.swapaxes(0, 1) if turned else wide), size=8)
    assert np.abs((pixels.swapaxes(0, 1) if turned else pixels) - middle).max() <= 1


def test_reducing_averages(tmp_path):
    """Antialiasing: a chessboard of single pixels becomes grey."""
    board = np.where(np.indices((64, 64)).sum(0) % 2, 255, 0).astype(np.uint8)
    assert np.abs(one_image(tmp_path, Image.fromarray(board), size=8).astype(int) - 127.5).max() < 3


def test_images_of_the_right_size_are_kept_to_the_byte(tmp_path):
    pixels = noise(0, 8, 8, 3)
    np.testing.assert_array_equal(one_image(tmp_path, Image.fromarray(pixels), size=8), pixels)
    grey = noise(1, 8, 8)
    for channels in (1, 3):
        read = one_image(tmp_path, Image.fromarray(grey), size=8, channels=channels)
        np.testing.assert_array_equal(read, np.repeat(grey[..., None], channels, -1))


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)  # transparent black
    pixels[:, 4:] = (*BLUE, 255)
    pixels[0, 0] = (*RED, 51)  # a fifth of red
    read = one_image(tmp_path, Image.fromarray(pixels), size=8)
    assert tuple(read[0, 0]) == (255, 204, 204)
    assert (read[1:, :4] == WHITE).all() and (read[:, 4:] == BLUE).all()
    grey = np.stack([np.zeros((8, 8), np.uint8), np.full((8, 8), 51, np.uint8)], -1)
    assert (one_image(tmp_path, Image.fromarray(grey), size=8, channels=1) == 204).all()


def test_palettes_are_looked_up(tmp_path):
    indices = noise(0, 8, 8) % 3
    image = Image.fromarray(indices)
    image.putpalette([200, 200, 200, 10, 10, 10, 90, 90, 90])
    assert image.mode == "P"
    grey = np.array([200, 10, 90], np.uint8)[indices]
    np.testing.assert_array_equal(one_image(tmp_path, image, size=8, channels=1)[..., 0], grey)
    np.testing.assert_array_equal(one_image(tmp_path, image, size=8), np.stack([grey] * 3, -1))
    image.info["transparency"] = 1  # this index
    seen = one_image(tmp_path, image, size=8, channels=1)[..., 0]
    np.testing.assert_array_equal(seen, np.where(indices == 1, 255, grey))


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    grey = noise(0, 8, 8)
    image = Image.fromarray(grey.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    for channels in (1, 3):
        read = one_image(tmp_path, image, size=8, channels=channels)
        np.testing.assert_array_equal(read, np.repeat(grey[..., None], channels, -1))


def test_thirty_two_bits_are_refused(tmp_path):
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.zeros((8, 8), np.float32)).save(path)
    assert mistake(folder, path=str(tmp_path), size=8) == (
        f"{path} cannot be read as an image (pixels of 32 bits, mode F; images have 8 or 16 bits a channel). "
        "Mend or remove it."
    )


def test_folder_says_what_is_missing(tmp_path):
    path = str(tmp_path / "none")
    no_folder = f"no folder '{path}': give the folder of images with --config.data.folder.path=FOLDER."
    assert mistake(folder, path=path, size=8) == no_folder
    (tmp_path / "none").write_text("a file")
    assert mistake(folder, path=path, size=8) == no_folder
    assert mistake(folder, path=str(tmp_path), size=8) == (
        f"no image below '{tmp_path}', only .png, .jpg, .jpeg, .webp, .avif, .bmp, .gif, .jp2, .pgm, .ppm, .tif, .tiff "
        "count: give --config.data.folder.path=FOLDER."
    )


@pytest.mark.parametrize(("size", "channels"), [(0, 3), (-8, 1), (8, 2), (8, 4)])
def test_folder_refuses_sizes_and_channels_that_are_none(pictures, size, channels):
    assert mistake(folder, path=str(pictures), size=size, channels=channels) == (
        f"size = {size}, channels = {channels}: size must be at least 1 (--config.data.folder.size=64), "
        "channels 1 or 3."
    )


def test_a_file_that_is_no_image_is_named(pictures):
    path = pictures / "dog" / "broken.jpg"
    for content in (b"", b"no image"):
        path.write_bytes(content)
        assert mistake(folder, path=str(pictures), size=8) == (
            f"{path} cannot be read as an image (cannot identify image file '{path}'). Mend or remove it."
        )
    path.write_bytes(b"P6\nx 0\n255\n")  # PIL raises a ValueError
    assert mistake(folder, path=str(pictures), size=8) == (
        f"{path} cannot be read as an image (invalid literal for int() with base 10: b'x'). Mend or remove it."
    )


def test_an_image_that_is_too_large_is_named(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.fromarray(noise(0, 8, 8, 3)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert mistake(folder, path=str(tmp_path), size=8) == (
        f"{path} cannot be read as an image (Image size (64 pixels) exceeds limit of 20 pixels, could be decompression "
        "bomb DOS attack.). Mend or remove it."
    )


def test_a_truncated_image_is_named_when_it_is_read(pictures):
    whole = Image.fromarray(noise(0, 90, 90, 3))
    for name, reason in (("z.png", "image file is truncated"), ("z.jpg", r"image file is truncated \(\d+ bytes.*\)")):
        path = pictures / "zebra" / name
        path.parent.mkdir(exist_ok=True)
        whole.save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        read = folder(path=str(pictures), size=8)  # headers are whole
        told = rf"^{re.escape(str(path))} cannot be read as an image \({reason}\)\. Mend or remove it\.$"
        for every_image in (in_memory, lambda read: next(grain_batches(read, 0, 6, 0))):
            assert re.match(told, mistake(every_image) if False else mistake(functools.partial(every_image, read)))
        path.unlink()


# TensorFlow Datasets


def tfds_set(name, examples, its_features):
    """Tells TFDS of a set: examples {split: [{feature: value}]} and what makes its features."""

    class Set(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self):
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features.FeaturesDict(its_features()))

        def _split_generators(self, _):
            return {split: enumerate(rows) for split, rows in examples.items()}

        def _generate_examples(self):
            raise NotImplementedError

    return type(name, (Set,), {"name": name, "__module__": __name__})


def with_labels(images):
    return [{"image": Image.fromarray(image), "label": i % 2} for i, image in enumerate(images)]


def striped(height, width):
    """Blue where the middle is cut out, red where not."""
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[(height - 20) // 2 : (height + 20) // 2, (width - 20) // 2 : (width + 20) // 2] = BLUE
    return Image.fromarray(pixels)


COLOUR = noise(0, 30, 6, 7, 3)
GREY = noise(1, 4, 8, 8, 1)

tfds_set(
    "ddpm_colour",
    {"train": with_labels(COLOUR[:20]), "test": with_labels(COLOUR[20:])},
    lambda: {"image": features.Image(shape=(6, 7, 3)), "label": features.ClassLabel(names=["cat", "dog"])},
)
tfds_set(
    "ddpm_grey",
    {"train": [{"image": image, "label": "no class"} for image in GREY]},
    lambda: {"image": features.Tensor(shape=(8, 8, 1), dtype=np.uint8), "label": features.Text()},
)
tfds_set(
    "ddpm_sizes",
    {"train": [{"image": striped(*size)} for size in ((20, 60), (60, 20), (20, 20))]},
    lambda: {"image": features.Image()},
)
tfds_set(
    "ddpm_transparent",
    {"train": [{"image": Image.new("RGBA", (9, 12), (255, 0, 0, 51))}]},
    lambda: {"image": features.Image(shape=(None, None, 4))},
)
tfds_set(
    "ddpm_words",
    {"train": [{"text": "a", "number": 1}]},
    lambda: {"text": features.Text(), "number": features.Scalar(np.int32)},
)
tfds_set(
    "ddpm_floats",
    {"train": [{"image": np.zeros((8, 8, 1), np.float32)}]},
    lambda: {"image": features.Tensor(shape=(8, 8, 1), dtype=np.float32)},
)
tfds_set("ddpm_never_prepared", {"train": with_labels(COLOUR)}, lambda: {"image": features.Image()})
tfds_set("ddpm_needs_tensorflow", {"train": [{"image": COLOUR[0]}]}, lambda: {"image": features.Image()})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepares one of the sets above, once, and says where; TFDS needs no TensorFlow for that."""
    data_dir = str(tmp_path_factory.mktemp("tfds"))

    def prepared(dataset):
        path = f"{data_dir}/{dataset}/1.0.0"
        for _ in range(2):  # the second time it is there
            assert prepare(dataset=dataset, data_dir=data_dir) == f"{dataset} is prepared in {path}"
        return dict(dataset=dataset, data_dir=data_dir)

    return prepared


@pytest.fixture
def offline(monkeypatch):
    """No connection; returns the addresses that were tried."""
    tried = []

    def refuse(address, *_, **__):
        tried.append(address)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    return tried


def test_tfds_reads_what_was_written(prepared):
    where = prepared("ddpm_colour")
    train, test = tfds(split="train", **where), tfds(split="test", **where)
    assert train.facts == Facts((6, 7, 3), 20, ("cat", "dog"))
    assert test.facts == Facts((6, 7, 3), 10, ("cat", "dog"))
    assert as_a_set(train.images) == as_a_set(COLOUR[:20])
    assert as_a_set(in_memory(test)) == as_a_set(COLOUR[20:])
    grey = tfds(**prepared("ddpm_grey"))
    assert grey.facts == Facts((8, 8, 1), 4, ())
    assert as_a_set(grey.images) == as_a_set(GREY)


@pytest.mark.parametrize(
    ("split", "count"),
    [("train[:90%]", 18), ("train[5:]", 15), ("train+test", 30), ("train[:3]+test[2:4]", 5), ("all", 30)],
)
def test_tfds_reads_parts_of_splits(prepared, split, count):
    read = tfds(split=split, **prepared("ddpm_colour"))
    assert read.facts.count == len(set(as_a_set(read.images))) == count


def test_tfds_resizes_images_of_many_sizes(prepared):
    read = tfds(size=10, **prepared("ddpm_sizes"))
    assert read.facts == Facts((10, 10, 3), 3, ())
    assert (in_memory(read)[:, 3:7, 3:7] == np.array(BLUE)).all()
    assert tfds(size=4, **prepared("ddpm_grey")).facts == Facts((4, 4, 1), 4, ())
    assert (tfds(size=4, **prepared("ddpm_transparent")).images[0] == (255, 204, 204)).all()


def test_tfds_says_which_images_it_cannot_use(prepared):
    assert mistake(tfds, **prepared("ddpm_sizes")) == (
        "images of 'ddpm_sizes' differ in size: give --config.data.tfds.size, such as 64."
    )
    assert mistake(tfds, **prepared("ddpm_words")) == (
        "data set 'ddpm_words' has no feature 'image', only text, number."
    )
    assert mistake(tfds, size=8, **prepared("ddpm_floats")) == (
        "feature 'image' of 'ddpm_floats' is Tensor(shape=(8, 8, 1), dtype=float32); it must be uint8 [height, width, "
        "channels]."
    )
    assert mistake(tfds, size=-1, **prepared("ddpm_colour")) == (
        "size = -1: --config.data.tfds.size must be at least 1, or 0 to leave the images as they are."
    )


def test_tfds_set_that_is_not_prepared_is_told_at_once_and_offline(tmp_path, offline, caplog):
    since = time.monotonic()
    for dataset, version in (
        ("cifar10", "3.0.2"),
        ("imagenet_resized/64x64", "0.1.0"),
        ("ddpm_never_prepared", "1.0.0"),
    ):
        assert re.sub(r"\d+\.\d+\.\d+", version, mistake(tfds, dataset=dataset, data_dir=str(tmp_path))) == (
            f"data set '{dataset}' is not prepared in {tmp_path}/{dataset}/{version}. "
            "Run the same command with --mode prepare, or give --config.data.tfds.data_dir."
        )
    assert time.monotonic() - since < 3
    assert not offline and not caplog.records


def test_an_unknown_tfds_set_names_the_nearest(tmp_path, offline):
    known = len(tensorflow_datasets.list_builders(with_community_datasets=False))
    for wrong, nearest in (("cifar", "cifar10"), ("ddpm_color", "ddpm_colour"), ("fashon_mnist", "fashion_mnist")):
        for unknown in (functools.partial(tfds, split="train"), prepare):
            said = mistake(unknown, dataset=wrong, data_dir=str(tmp_path))
            assert said.startswith(
                f"unknown TFDS data set '{wrong}'. Did you mean '{nearest}'? Near to it: {nearest}"
            ) and said.endswith(f"; {known} are known.")
    assert mistake(tfds, dataset="").startswith("unknown TFDS data set ''. ")
    assert mistake(tfds, dataset="huggingface:mnist").startswith("unknown TFDS data set 'huggingface:mnist'. ")
    assert not offline


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("cifar10:9.9.9", r"Dataset cifar10 cannot be loaded at version 9\.9\.9, only: .*"),
        ("imagenet_resized/65x65", r"BuilderConfig 65x65 not found .* 64x64:.*"),
        ("cifar10:1", r"Parsing builder name string cifar10:1 failed\. .*"),
    ],
)
def test_a_wrong_version_or_config_of_a_tfds_set_is_named(tmp_path, dataset, reason):
    told = mistake(tfds, dataset=dataset, data_dir=str(tmp_path))
    assert re.fullmatch(rf"TFDS cannot open '{dataset}' in {re.escape(str(tmp_path))}: .*{reason}", told)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "unknown split of ddpm_colour 'trian'. Did you mean 'train'? Known: test, train."),
        ("trian[:5]", "unknown split of ddpm_colour 'trian[:5]'. Did you mean 'train'? Known: test, train."),
        ("train+validation", "unknown split of ddpm_colour 'validation'. Known: test, train."),
        ("", "unknown split of ddpm_colour ''. Known: test, train."),
    ],
)
def test_an_unknown_tfds_split_names_the_nearest(prepared, split, message):
    assert mistake(tfds, split=split, **prepared("ddpm_colour")) == message


@pytest.mark.parametrize("split", ["train[", "train[a]", "train[:0]", "train[20:]", "train[:21]", "train[5:3]"])
def test_a_tfds_split_that_is_malformed_or_empty_is_named(prepared, split):
    told = mistake(tfds, split=split, **prepared("ddpm_colour"))
    assert re.fullmatch(
        rf"split '{re.escape(split)}' of ddpm_colour is empty or malformed \(.+\)\. Write it like 'train\[:90%\]'; "
        "images: train 20, test 10.",
        told,
    )


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of ddpm_colour to spoil."""
    where = prepared("ddpm_colour")
    path = tmp_path / "ddpm_colour" / "1.0.0"
    shutil.copytree(f"{where['data_dir']}/ddpm_colour/1.0.0", path)
    return path, dict(dataset="ddpm_colour", data_dir=str(tmp_path))


def test_a_tfds_set_in_another_format_or_incomplete_is_told(copied):
    path, where = copied
    remedy = (
        "not one in array_record. Remove that folder or choose another --config.data.tfds.data_dir, and run the same "
        "command with --mode prepare."
    )
    info = path / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    for function in (tfds, prepare):
        assert mistake(function, **where) == f"{path} holds a set in the format tfrecord, {remedy}"
    info.unlink()
    for function in (tfds, prepare):
        assert mistake(function, **where) == f"{path} holds no complete set, {remedy}"


def test_a_broken_tfds_record_is_named(copied):
    path, where = copied
    records = path / "ddpm_colour-train.array_record-00000-of-00001"
    records.write_bytes(records.read_bytes()[:-100])
    assert re.fullmatch(
        rf"record \d+ in {re.escape(str(path))} cannot be read \(Corrupted .+\)\. "
        r"Remove that folder and run the same command with --mode prepare\.",
        mistake(tfds, **where),
    )


def test_prepare_offline_is_told_at_once(tmp_path, offline):
    since = time.monotonic()
    assert mistake(prepare, dataset="cifar10", data_dir=str(tmp_path)) == (
        "cifar10 is downloaded from www.cs.toronto.edu, which cannot be reached (Network is unreachable). "
        f"Connect, or copy a prepared set to {tmp_path}/cifar10/3.0.2."
    )
    assert time.monotonic() - since < 3
    assert offline == [("www.cs.toronto.edu", 443)]


def test_prepare_asks_the_ports_that_are_used_and_is_content_with_one(tmp_path, offline, monkeypatch):
    urls = [
        "http://a.example/1.zip",
        "https://b.example/2.zip",
        "https://b.example:8443/3.zip",
        "ftp://c.example/4.zip",
    ]
    colour = tensorflow_datasets.builder_cls("ddpm_colour")
    monkeypatch.setattr(colour, "url_infos", dict.fromkeys(urls))
    where = dict(dataset="ddpm_colour", data_dir=str(tmp_path))
    assert mistake(prepare, **where) == (
        "ddpm_colour is downloaded from a.example, b.example, c.example, which cannot be reached (Network is "
        f"unreachable). Connect, or copy a prepared set to {tmp_path}/ddpm_colour/1.0.0."
    )
    assert offline == [("a.example", 80), ("b.example", 443), ("b.example", 8443), ("c.example", 21)]

    def one_answers(address, timeout):
        assert timeout <= 5
        if address != ("b.example", 443):
            raise OSError("Network is unreachable")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", one_answers)
    assert prepare(**where) == f"ddpm_colour is prepared in {tmp_path}/ddpm_colour/1.0.0"


def test_prepare_behind_a_proxy_asks_no_host(tmp_path, offline, monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    monkeypatch.setattr(tensorflow_datasets.builder_cls("ddpm_colour"), "url_infos", {"https://a.example/1.zip": None})
    where = dict(dataset="ddpm_colour", data_dir=str(tmp_path))
    assert prepare(**where) == f"ddpm_colour is prepared in {tmp_path}/ddpm_colour/1.0.0"
    assert not offline


def test_prepare_without_tensorflow_says_so_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert mistake(prepare, dataset="ddpm_needs_tensorflow", data_dir=str(tmp_path)) == (
        "TFDS needs TensorFlow to prepare ddpm_needs_tensorflow: pip install 'ddpm[prepare]'. "
        "Training does not need it, so another environment may prepare the set."
    )


def test_prepare_passes_on_what_tfds_says(tmp_path, monkeypatch):
    def fail(self, **_):
        raise AssertionError("Manual directory is empty.\n  Put there: a.zip")

    monkeypatch.setattr(tensorflow_datasets.builder_cls("ddpm_colour"), "download_and_prepare", fail)
    assert mistake(prepare, dataset="ddpm_colour", data_dir=str(tmp_path)) == (
        "TFDS could not prepare ddpm_colour: AssertionError: Manual directory is empty. Put there: a.zip"
    )


def test_nothing_imports_tensorflow_and_a_prepared_set_needs_no_code_of_its_own(prepared, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise RuntimeError('imported')")
    where = prepared("ddpm_colour")
    code = f"""
import sys
from ddpm.data.pipeline import grain_batches, in_memory
from ddpm.data.tfds import prepare, tfds
from ddpm.errors import InputError
read = tfds(**{where})
print(read.facts.shape, read.facts.count, read.facts.classes)
print(in_memory(read).shape, next(grain_batches(read, 0, 8, 0)).shape)
for wrong in (dict(dataset="cifar"), dict(dataset="cifar10"), dict(dataset="ddpm_colour", split="trian")):
    try:
        tfds(data_dir={where["data_dir"]!r}, **wrong)
    except InputError as error:
        print(str(error)[:20])
prepare(**{where})
print([name for name in sys.modules if name.split(".")[0] in ("tensorflow", "torch")])
"""
    path = os.pathsep.join([str(tmp_path), str(REPO)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "(6, 7, 3) 20 ('cat', 'dog')",
        "(20, 6, 7, 3) (8, 6, 7, 3)",
        "unknown TFDS data se",
        "data set 'cifar10' i",
        "unknown split of ddp",
        "[]",
    ]


DATA_DIR = os.environ.get("DDPM_TFDS_DIR", "")


@pytest.mark.skipif(not os.path.isdir(f"{DATA_DIR}/cifar10"), reason="DDPM_TFDS_DIR names no directory with cifar10")
def test_cifar10_is_cifar10():
    read = tfds(dataset="cifar10", split="train", data_dir=DATA_DIR)
    assert read.facts.shape == (32, 32, 3) and read.facts.count == 50_000 and len(read.facts.classes) == 10
    mean = in_memory(read).mean((0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)


# Batches


@functools.partial(jax.jit, static_argnums=1)
def permutations(keys, count):
    """Row per key: where each index of 0..count-1 goes."""
    return jax.vmap(jax.vmap(permuted, (None, 0, None)), (0, None, None))(
        keys, jnp.arange(count, dtype=jnp.uint32), count
    )


def epochs(seed, count):
    return per_index(stream(seed, "data"), jnp.arange(count))


@settings(deadline=None, max_examples=4)  # a second to compile each
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
@example(count=1, seed=0)
@example(count=1024, seed=0)  # a power of 4: none falls outside
@example(count=1025, seed=0)  # most do
def test_an_epoch_is_a_permutation(count, seed):
    for order in np.asarray(permutations(epochs(seed, 4), count)):
        np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_each_epoch_has_its_own_order():
    orders = np.asarray(permutations(epochs(0, 50), 1000))
    same_place = [(a == b).sum() for i, a in enumerate(orders) for b in orders[:i]]  # Poisson of mean 1
    assert max(same_place) < 10 and 0.7 < np.mean(same_place) < 1.3


def test_each_index_goes_everywhere_alike():
    for places in np.asarray(permutations(epochs(1, 20_000), 10)).T:
        assert stats.chisquare(np.bincount(places, minlength=10)).pvalue > 1e-4


def test_neighbours_of_an_epoch_are_strangers():
    order = np.asarray(permutations(epochs(0, 50), 1000)).astype(float)
    assert abs(np.corrcoef(order[:, :-1].ravel(), order[:, 1:].ravel())[0, 1]) < 0.02  # 1 / sqrt(50 000) = 0.004
    assert abs(np.corrcoef(order.ravel(), np.tile(np.arange(1000), 50))[0, 1]) < 0.02


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (5, 12)])
def test_batches_cover_each_epoch_once(count, batch_size):
    indices = jax.jit(lambda n: shuffled_indices(stream(0, "data"), n, batch_size, count))
    batches = 3 * count
    last_first = {n: np.asarray(indices(jnp.int32(n))) for n in reversed(range(batches))}
    run = np.concatenate([last_first[n] for n in range(batches)]).reshape(-1, count)
    np.testing.assert_array_equal(np.sort(run), np.tile(np.arange(count), (3 * batch_size, 1)))
    assert len(np.unique(run, axis=0)) > 1
    np.testing.assert_array_equal(indices(jnp.int32(2)), last_first[2])


def test_about_half_of_a_batch_is_mirrored_left_to_right_and_nothing_else():
    batch = noise(0, 400, 3, 4, 2)
    turned = []
    for i in range(10):
        after = np.asarray(mirrored(jnp.asarray(batch), jax.random.key(i)))
        turned.append((after != batch).any((1, 2, 3)))
        expected = np.where(turned[-1][:, None, None, None], np.flip(batch, 2), batch)
        np.testing.assert_array_equal(after, expected)
    turned = np.array(turned)
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / np.sqrt(turned.size)
    assert stats.binomtest(int(turned.any(0).sum() - turned.all(0).sum()), 400, 1 - 2**-9).pvalue > 1e-3


COUNT = 20
NUMBERED = Dataset(noise(0, COUNT, 4, 4, 3))
BY_PIXELS = {image.tobytes(): i for i, image in enumerate(NUMBERED.images)}
MIRRORED_OR_NOT = BY_PIXELS | {image[:, ::-1].tobytes(): i for i, image in enumerate(NUMBERED.images)}


class OneByOne(Sequence):
    """The same images, read when asked."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        self.read += 1
        return NUMBERED.images[i]


def make_feed(dataset=NUMBERED, *, seed=0, batch_size=8, flip=False, resident=True):
    mesh = sharding.data_mesh()
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)
    options = dict(batch_size=batch_size, flip=flip, split=split, replicated=replicated)
    return feed(dataset, seed=seed, resident_bytes=dataset.nbytes if resident else dataset.nbytes - 1, **options)


def draw(made, first, count):
    """Batches first, first + 1, ... as a training loop draws them."""
    given, compiled = made.start(first), jax.jit(made.draw)
    return [compiled(next(given), jnp.int32(n)) for n in range(first, first + count)]


def numbers(batches, known=BY_PIXELS):
    """Which images batches hold."""
    return [known[np.asarray(image).tobytes()] for batch in batches for image in batch]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("batch_size", [8, 32])  # neither divides an epoch, one is larger
def test_a_feed_gives_each_image_once_an_epoch(resident, batch_size):
    made = make_feed(Dataset(OneByOne()), batch_size=batch_size, resident=resident)
    assert made.resident == resident
    run = np.array(numbers(draw(made, 0, 10))).reshape(-1, COUNT)
    np.testing.assert_array_equal(np.sort(run), np.tile(np.arange(COUNT), (len(run), 1)))
    assert len(np.unique(run, axis=0)) == len(run)


def test_streaming_reads_a_few_batches_ahead():
    images = OneByOne()
    batches = grain_batches(Dataset(images), 0, 8, 0)
    for _ in range(3):
        next(batches)
    time.sleep(0.5)
    assert images.read <= 1 + 8 * 40


@pytest.mark.parametrize("resident", [True, False])
def test_a_feed_goes_on_where_it_stopped(resident):
    """Batch n is a function of the seed and n."""
    whole = draw(make_feed(flip=True, resident=resident), 0, 9)
    for first in (1, 5):
        again = draw(make_feed(flip=True, resident=resident), first, 9 - first)
        np.testing.assert_array_equal(np.stack(again), np.stack(whole[first:]))
    other = draw(make_feed(seed=1, flip=True, resident=resident), 0, 9)
    assert numbers(other, MIRRORED_OR_NOT) != numbers(whole, MIRRORED_OR_NOT)


def test_a_negative_seed_streams_too():
    batches = [next(grain_batches(NUMBERED, seed, 8, 0)) for seed in (-1, 2**32 - 1, 0)]
    assert numbers(batches[:1]) == numbers(batches[1:2]) != numbers(batches[2:])


def turned_by(**options):
    """Which of 80 images a feed mirrors, where each is an image of the set or its mirror image."""
    plain, flipped = (np.concatenate(draw(make_feed(flip=flip, **options), 0, 10)) for flip in (False, True))
    numbers([plain])  # raises if one is not an image of the set
    turned = (plain != flipped).any((1, 2, 3))
    np.testing.assert_array_equal(flipped, np.where(turned[:, None, None, None], np.flip(plain, 2), plain))
    return turned


@pytest.mark.parametrize("resident", [True, False])
def test_a_feed_mirrors_half_of_the_images_if_told(resident):
    assert 20 < turned_by(resident=resident).sum() < 60


def test_another_seed_mirrors_others():
    assert (turned_by(seed=0, resident=False) != turned_by(seed=1, resident=False)).any()


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_split_over_all_devices(resident):
    made = make_feed(resident=resident, flip=True)
    given = next(made.start(0))
    assert {shard.data.shape[0] for shard in given.addressable_shards} == {COUNT if resident else 1}
    (batch,) = draw(made, 0, 1)
    assert batch.dtype == np.uint8 and batch.shape == (8, 4, 4, 3)
    shards = sorted(batch.addressable_shards, key=lambda shard: shard.index[0].start)
    assert len({shard.device for shard in shards}) == jax.device_count() == 8
    assert [shard.data.shape for shard in shards] == [(1, 4, 4, 3)] * 8
    np.testing.assert_array_equal(np.concatenate([np.asarray(shard.data) for shard in shards]), batch)
