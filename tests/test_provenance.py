"""Images are known by every one of them: what changed at the same place is another set."""

import numpy as np
import pytest
from data_sets import noise
from PIL import Image

from ddpm.data.folder import folder
from ddpm.data.images import Dataset
from ddpm.evaluation.features.classifier import classifier
from ddpm.evaluation.sources import of_dataset

IMAGES = noise(0, 600, 8, 8, 1)


@pytest.fixture(autouse=True)
def no_cache_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class OneByOne(list):
    """Images that are no array."""


@pytest.mark.parametrize("of", [np.asarray, OneByOne])
def test_one_pixel_of_any_image_makes_another_set(of):
    first = Dataset(of(IMAGES))
    assert Dataset(of(IMAGES.copy())).sha256 == first.sha256 == Dataset(IMAGES).sha256
    for i in range(0, 600, 7):
        changed = IMAGES.copy()
        changed[i, 3, 4] ^= 1
        assert Dataset(of(changed)).sha256 != first.sha256
    assert of_dataset(Dataset(changed), "x").key != of_dataset(first, "x").key
    others = (IMAGES[::-1], IMAGES[:-1], IMAGES.reshape(600, 4, 16, 1))
    assert len({first.sha256, *(Dataset(of(other)).sha256 for other in others)}) == 4


def test_a_folder_is_known_by_its_files_wherever_it_lies(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for i in range(5):
            Image.fromarray(IMAGES[i, ..., 0]).save(tmp_path / place / f"{i}.png")

    def sha(place, **options):
        return folder(path=str(tmp_path / place), **{"size": 0, "channels": 1} | options).sha256

    assert sha("a") == sha("b")
    assert len({sha("a"), sha("a", channels=3), sha("a", size=4)}) == 3
    before = sha("a")
    Image.fromarray(IMAGES[9, ..., 0]).save(tmp_path / "a" / "3.png")
    assert sha("a") != before


def test_a_classifier_whose_file_broke_is_trained_again(tmp_path):
    dataset = Dataset(IMAGES, ("a", "b"), np.arange(600) % 2)
    sha = classifier(dataset=dataset, steps=2).sha256
    (file,) = tmp_path.rglob("*-2.npz")
    whole = file.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert classifier(dataset=dataset, steps=2).sha256 == sha


def test_a_classifier_of_other_labels_is_another():
    def sha(labels, classes=("a", "b")):
        return classifier(dataset=Dataset(IMAGES, classes, labels), steps=2).sha256

    labels = np.arange(600) % 2
    assert sha(labels) == sha(labels.copy())
    assert len({sha(labels), sha(1 - labels), sha(None, ()), sha(labels, ("a", "b", "c"))}) == 4
