"""What files beside images say of them: a captions.json in their folder, or a .txt for each."""

import json
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from absl import logging

from ddpm.errors import InputError

FILE = "captions.json"


class Captions(NamedTuple):
    """The images that are spoken of, in order, and lists as long: their captions and, if any are sorted, categories."""

    images: list[pathlib.Path]
    captions: list[str] | None = None
    categories: list[str] | None = None


def beside(root: pathlib.Path, images: list[pathlib.Path], files: set[pathlib.Path]) -> Captions:
    """The captions of images below a folder, as `ddpm.data.folder` says where they stand.

    Args:
      images: the paths of the images, below `root`.
      files: all that there are below it.
    Raises:
      InputError: a file that cannot be read or that names an image that is not there, or an image without a caption or
        category where others have one.
    """
    if (root / FILE).is_file():
        return _of_json(root / FILE, {image.relative_to(root).as_posix(): image for image in images})
    texts = [image.with_suffix(".txt") for image in images]
    there = [text in files for text in texts]
    if not any(there):
        return Captions(images)
    if not all(there):
        image, text = images[there.index(False)], texts[there.index(False)]
        raise InputError(
            f"{image} has no caption, but {texts[there.index(True)]} is one: write {text}, which may be empty, or remove "
            "all of them."
        )
    with ThreadPoolExecutor() as threads:
        return Captions(images, [text.strip() for text in threads.map(_text, texts)])


def _of_json(file: pathlib.Path, images: dict[str, pathlib.Path]) -> Captions:
    try:
        said = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not JSON ({error}). Mend or remove it.") from error
    if not isinstance(said, dict) or not said:
        raise InputError(f'{file} must be {{"IMAGE": "CAPTION", ...}}, and is not. Mend or remove it.')
    rows = {name: row if isinstance(row, dict) else {"caption": row} for name, row in said.items()}
    needed = ("caption", "category") if any("category" in row for row in rows.values()) else ("caption",)
    for name, row in rows.items():
        if name not in images:
            raise InputError(f"{file} speaks of {name!r}, and there is no such image. Mend or remove it.")
        for of in needed:
            if not isinstance(row.get(of), str):
                raise InputError(
                    f"{file}: the {of} of {name!r} is {row.get(of)!r}; each image needs one, in quotes. Mend or remove it."
                )
    if len(rows) < len(images):
        logging.warning("%d images that %s does not speak of are left out", len(images) - len(rows), file)
    names = [name for name in images if name in rows]
    captions, *categories = ([rows[name][of] for name in names] for of in needed)
    return Captions([images[name] for name in names], captions, *categories)


def _text(file: pathlib.Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text of UTF-8 ({error}). Mend or remove it.") from error
