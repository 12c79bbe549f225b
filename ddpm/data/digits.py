"""scikit-learn's digits: 1,797 grey images of 8 x 8, in the package itself, so that the first run needs no download."""

import importlib.util
import pathlib

import numpy as np

from ddpm.data.images import Dataset
from ddpm.errors import unknown_name

SPLITS = {"train": slice(0, 1500), "test": slice(1500, None)}


def digits(*, split: str = "train") -> Dataset:
    """The digits data set (Alpaydin and Kaynak 1998), shuffled once: 1,500 to train and 297 to test.

    Args:
      split: 'train' or 'test'.
    """
    if split not in SPLITS:
        raise unknown_name("split of digits", split, SPLITS)
    # The file load_digits reads; to import scikit-learn takes 2 s.
    (package,) = importlib.util.find_spec("sklearn").submodule_search_locations
    table = np.loadtxt(pathlib.Path(package) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    grey = table[:, :-1].reshape(-1, 8, 8)  # 0..16
    order = np.random.default_rng(0).permutation(len(grey))
    images = np.round(grey * (255 / 16)).astype(np.uint8)[..., None]
    chosen = order[SPLITS[split]]
    return Dataset(images[chosen], tuple("0123456789"), table[chosen, -1].astype(np.int32))
