"""Folders and .npz files that are not as expected: other channels, links, another layout, other names."""

import numpy as np
from data_sets import mistake, noise
from PIL import Image

from ddpm.data.folder import folder
from ddpm.data.images import Facts
from ddpm.data.npz import npz
from ddpm.evaluation import statistics


def test_channels_are_those_of_the_files_where_none_are_asked_for(tmp_path):
    grey, colour = Image.fromarray(noise(0, 8, 8)), Image.fromarray(noise(1, 8, 8, 3))
    greys = [grey, grey.convert("1"), grey.convert("LA"), Image.fromarray(noise(0, 8, 8).astype(np.uint16))]
    colours = [colour, colour.convert("RGBA"), colour.convert("P")]
    for image, channels in [*((image, 1) for image in greys), *((image, 3) for image in colours)]:
        image.save(tmp_path / "a.png")
        assert folder(path=str(tmp_path), size=0, channels=0).facts.shape == (8, 8, channels)
    grey.save(tmp_path / "b.png")
    assert mistake(folder, path=str(tmp_path), size=0, channels=0) == (
        f"{tmp_path / 'a.png'} is colour, {tmp_path / 'b.png'} grey: images that are left as they are must be all grey or all "
        "colour. Give --config.data.folder.channels=3 to convert them."
    )


def test_links_are_followed_but_not_in_circles(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for i, place in enumerate((root / "cat", elsewhere / "dog", elsewhere / "bird" / "young")):
        place.mkdir(parents=True)
        Image.fromarray(noise(i, 8, 8, 3)).save(place / "1.png")
    (root / "dog").symlink_to(elsewhere / "dog")
    (root / "bird").symlink_to(elsewhere / "bird")
    (root / "cat" / "2.png").symlink_to(root / "cat" / "1.png")
    (root / "cat" / "none.png").symlink_to(tmp_path / "nowhere")
    expected = Facts((8, 8, 3), 4, ("bird", "cat", "dog"))
    assert folder(path=str(root), size=8).facts == expected
    (root / "cat" / "root").symlink_to(root)
    (elsewhere / "bird" / "young" / "self").symlink_to(root / "bird")
    read = folder(path=str(root), size=8)
    assert read.facts == expected and list(read.labels) == [0, 1, 1, 2]


def test_images_alone_are_read_by_one_rule_under_any_name(tmp_path):
    path, colour, grey = str(tmp_path / "a.npz"), noise(0, 5, 6, 7, 3), noise(1, 5, 6, 7)
    for arrays in ({"arr_0": grey}, {"samples": grey}, {"samples": grey, "labels": np.arange(5), "scale": np.uint8(3)}):
        np.savez(path, **arrays)
        for read in (npz(path=path).images, statistics.read(path).images):
            np.testing.assert_array_equal(read, grey[..., None])
    np.savez(path, images=colour)
    np.testing.assert_array_equal(statistics.read(path).images, colour)
    np.savez(path, a=colour, b=grey)
    told = f"unknown array in {path} (--config.data.npz.array) 'arr_0'. Known: a, b."
    assert mistake(npz, path=path) == told
    assert mistake(statistics.read, path) == f"{told} Statistics would be mu and sigma, or feats."


def test_channels_that_come_first_are_told(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, noise(0, 5, 3, 16, 16))
    assert mistake(npz, path=path) == (
        f"array 'arr_0' of {path} is of shape (5, 3, 16, 16), channels first; images must be [count, height, width, channels]. "
        "Write images.transpose(0, 2, 3, 1) instead."
    )
    np.savez(path, noise(0, 5, 3, 16, 16).transpose(0, 2, 3, 1))
    assert npz(path=path).facts.shape == (16, 16, 3)
