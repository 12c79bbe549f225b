"""Classes of images, from every source that knows them."""

import numpy as np
import pytest
from data_sets import mistake, noise
from PIL import Image
from sklearn.datasets import load_digits

from ddpm.data.digits import digits
from ddpm.data.folder import folder
from ddpm.data.images import Dataset
from ddpm.data.npz import npz


def test_labels_of_digits_are_scikit_learns():
    known = load_digits()
    answer = {
        np.round(image * 255 / 16).astype(np.uint8).tobytes(): y
        for image, y in zip(known.images, known.target, strict=True)
    }
    for split in ("train", "test"):
        read = digits(split=split)
        assert read.classes == tuple("0123456789")
        assert [answer[image.tobytes()] for image in read.images] == list(read.labels)


def test_labels_of_an_npz_file(tmp_path):
    np.savez(tmp_path / "x.npz", arr_0=noise(0, 5, 6, 7, 3), arr_1=np.array([2, 0, 0, 1, 2]))
    read = npz(path=str(tmp_path / "x.npz"))
    assert read.classes == ("0", "1", "2") and list(read.labels) == [2, 0, 0, 1, 2]
    none = npz(path=str(tmp_path / "x.npz"), labels="")
    assert none.classes == () and none.labels is None


@pytest.mark.parametrize("labels", [np.array([0.5, 1]), np.array([0, -1]), np.array([[0], [1]]), np.array(["a", "b"])])
def test_labels_that_are_none_are_refused(tmp_path, labels):
    path = str(tmp_path / "x.npz")
    np.savez(path, arr_0=noise(0, 2, 6, 7, 3), arr_1=labels)
    assert mistake(npz, path=path) == (
        f"array 'arr_1' of {path} is {labels.dtype} of shape {labels.shape}; labels must be integers from 0, [count]. "
        "Give --config.data.npz.labels='' to read none."
    )


def test_each_image_needs_a_label():
    assert mistake(Dataset, noise(0, 3, 8, 8, 1), ("a",), np.zeros(2, int)) == "3 images have 2 labels; each needs one."


def save(path, *images):
    path.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i}.png")


def test_labels_of_a_folder_are_its_sub_folders(tmp_path):
    save(tmp_path / "zebra", noise(0, 6, 6, 3))
    save(tmp_path / "cat" / "black", *noise(1, 2, 6, 6, 3))
    read = folder(path=str(tmp_path), size=6)
    assert read.classes == ("cat", "zebra") and list(read.labels) == [0, 0, 1]
    Image.fromarray(noise(2, 6, 6, 3)).save(tmp_path / "of no class.png")
    assert folder(path=str(tmp_path), size=6).labels is None


def test_a_folder_is_left_as_it_is(tmp_path):
    images = noise(0, 3, 5, 7, 3)
    save(tmp_path / "a", *images)
    read = folder(path=str(tmp_path), size=0)
    np.testing.assert_array_equal(np.stack([read.images[i] for i in range(3)]), images)
    grey = folder(path=str(tmp_path), size=0, channels=1)
    assert grey.facts.shape == (5, 7, 1)
    Image.fromarray(noise(1, 6, 7, 3)).save(tmp_path / "a" / "9.png")
    assert mistake(folder, path=str(tmp_path), size=0) == (
        f"{tmp_path}/a/0.png is 7 x 5, {tmp_path}/a/9.png 7 x 6: images that are left as they are must be of one size. "
        "Give --config.data.folder.size=64 to resize them."
    )
