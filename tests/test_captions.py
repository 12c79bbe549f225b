"""What data sets say of their images."""

import json

import numpy as np
from absl import logging
from data_sets import GREEN, RED, WHITE, mistake, noise
from PIL import Image

from ddpm.data.folder import folder
from ddpm.data.images import Dataset, Facts
from ddpm.data.npz import npz


def save(file, colour=RED):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(file)


def read(root, said=None, **options):
    if said is not None:
        (root / "captions.json").write_text(said if isinstance(said, str) else json.dumps(said), "utf-8")
    return folder(path=str(root), size=8, **options)


def test_a_caption_belongs_to_its_image(tmp_path):
    """Whatever the order in the file, and whatever the letters."""
    save(tmp_path / "b.png", GREEN)
    save(tmp_path / "a-1" / "1.png", RED)
    save(tmp_path / "a" / "2.png", WHITE)
    said = {"b.png": "green", "a/2.png": "", "a-1/1.png": "rouge, süß, 赤"}
    dataset = read(tmp_path, said)
    told = {tuple(image[0, 0]): caption for image, caption in zip(dataset.images, dataset.captions, strict=True)}
    assert told == {GREEN: "green", WHITE: "", RED: "rouge, süß, 赤"}
    (tmp_path / "captions.json").unlink()
    assert read(tmp_path).captions is None
    for image, caption in said.items():
        (tmp_path / image).with_suffix(".txt").write_text(f"  {caption}\n", "utf-8")
    again = read(tmp_path)
    assert list(again.captions) == list(dataset.captions)
    assert again.sha256 == dataset.sha256


def test_categories_are_classes(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "images" / name)
    rows = zip("abc", ("Symbols", "Animals & Nature", "Symbols"), strict=True)
    said = {f"images/{name}.png": {"caption": name, "category": category, "more": 3} for name, category in rows}
    dataset = read(tmp_path, said)
    assert dataset.facts == Facts((8, 8, 3), 3, ("Animals & Nature", "Symbols"))
    assert list(dataset.labels) == [1, 0, 1] and list(dataset.captions) == ["a", "b", "c"]
    assert read(tmp_path, {name: row["caption"] for name, row in said.items()}).facts.classes == ("images",)


def test_images_that_are_not_spoken_of_are_left_out_and_counted(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    told = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: told.append(message % values))
    dataset = read(tmp_path, {"b.png": "b"})
    assert dataset.captions == ["b"] and dataset.facts.count == 1
    assert told == [f"2 images that {tmp_path / 'captions.json'} does not speak of are left out"]


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.save(tmp_path / "a.png")
    (pixels,) = read(tmp_path, {"a.png": "a red dot"}).images
    assert tuple(pixels[0, 0]) == RED and tuple(pixels[7, 7]) == WHITE


def test_captions_that_do_not_fit_the_images(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    file = tmp_path / "captions.json"
    assert mistake(read, tmp_path, {"a.png": "a", "d.png": "d"}) == (
        f"{file} speaks of 'd.png', and there is no such image. Mend or remove it."
    )
    for wrong, value in (({"caption": None}, "None"), ({}, "None"), ({"caption": 3}, "3"), (3, "3")):
        assert mistake(read, tmp_path, {"a.png": "a", "b.png": wrong}) == (
            f"{file}: the caption of 'b.png' is {value}; each image needs one, in quotes. Mend or remove it."
        )
    assert mistake(read, tmp_path, {"a.png": {"caption": "a", "category": "A"}, "b.png": "b"}) == (
        f"{file}: the category of 'b.png' is None; each image needs one, in quotes. Mend or remove it."
    )
    for said in ([1], {}):
        assert mistake(read, tmp_path, json.dumps(said)) == (
            f'{file} must be {{"IMAGE": "CAPTION", ...}}, and is not. Mend or remove it.'
        )
    assert mistake(read, tmp_path, "{") == (
        f"{file} is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)). "
        "Mend or remove it."
    )
    file.write_bytes(b"\xff")
    assert mistake(read, tmp_path).startswith(f"{file} cannot be read as text of UTF-8 (")


def test_a_text_is_missing_beside_an_image(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "README.txt").write_text("of no image")
    assert read(tmp_path).captions is None
    (tmp_path / "b.txt").write_text("b")
    assert mistake(read, tmp_path) == (
        f"{tmp_path / 'a.png'} has no caption, but {tmp_path / 'b.txt'} is one: write {tmp_path / 'a.txt'}, which may be "
        "empty, or remove all of them."
    )


def test_captions_of_an_npz_file(tmp_path):
    path, images = str(tmp_path / "a.npz"), noise(0, 3, 4, 4, 3)
    captions = ["a red heart", "", "ein süßes 赤"]
    for more in ({}, {"arr_1": np.array([1, 0, 1])}):
        np.savez(path, images, captions=np.array(captions), **more)
        dataset = npz(path=path)
        assert dataset.captions == captions
        assert (dataset.labels is None) == (not more)
        assert npz(path=path, captions="").captions is None
    np.savez(path, images, words=np.array(captions))
    assert npz(path=path).captions is None
    assert npz(path=path, captions="words").captions == captions
    np.savez(path, images, captions=np.arange(3))
    assert mistake(npz, path=path) == (
        f"array 'captions' of {path} is int64 of shape (3,); captions must be strings, [count]. "
        "Give --config.data.npz.captions='' to read none."
    )
    np.savez(path, images, captions=np.array(captions, object))
    assert mistake(npz, path=path).startswith(f"{path} cannot be read as a .npz file of images (Object arrays cannot")


def test_as_many_captions_as_images():
    assert mistake(Dataset, noise(0, 3, 4, 4, 3), captions=["a", "b"]) == ("3 images have 2 captions; each needs one.")
