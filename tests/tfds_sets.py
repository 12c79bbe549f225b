"""Sets of TensorFlow Datasets that tests prepare."""

import numpy as np
import tensorflow_datasets
from data_sets import BLUE, RED, noise
from PIL import Image
from tensorflow_datasets import features


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
