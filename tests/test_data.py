"""Data sets from arrays and files."""

import functools
import gc
import re

import numpy as np
import pytest
from data_sets import BLUE, RED, WHITE, as_a_set, mistake, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from ddpm.data.decoded import in_memory
from ddpm.data.digits import digits
from ddpm.data.folder import folder
from ddpm.data.images import Dataset, Facts
from ddpm.data.npz import npz
from ddpm.data.pipeline import grain_batches
from ddpm.errors import InputError

# Any data set


def test_a_data_set_of_no_images_or_of_others_than_bytes_is_refused():
    assert mistake(Dataset, images=noise(0, 0, 8, 8, 3)) == "the data set holds no images."
    assert mistake(Dataset, images=np.zeros((2, 8, 8, 3), np.float32)) == (
        "images are float32 of shape (8, 8, 3); they must be uint8 [height, width, channels] in 0..255."
    )
    assert mistake(Dataset, images=noise(0, 2, 8, 8)) == (
        "images are uint8 of shape (8, 8); they must be uint8 [height, width, channels] in 0..255."
    )


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
    np.savez(path, images=noise(0, 5, 6, 7, 3) / 255, labels=np.arange(5))
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


@pytest.mark.parametrize(("size", "channels"), [(-8, 1), (8, 2), (8, 4)])
def test_folder_refuses_sizes_and_channels_that_are_none(pictures, size, channels):
    assert mistake(folder, path=str(pictures), size=size, channels=channels) == (
        f"size = {size}, channels = {channels}: size must be at least 1 (--config.data.folder.size=64), or 0 to leave the "
        "images as they are; channels 1 or 3, or 0 likewise."
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
            assert re.match(told, mistake(functools.partial(every_image, read)))
        path.unlink()
