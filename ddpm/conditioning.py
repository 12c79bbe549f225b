"""What a model is told, by `config.condition`."""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm import degradations
from ddpm.condition import NOTHING, Condition
from ddpm.degradation import Degradation
from ddpm.errors import InputError
from ddpm.names import call, chosen, find, options_of
from ddpm.shapes import Images, Keys
from ddpm.text.encoder import TextEncoder


class Conditioning(NamedTuple):
    """What a model is told of each image.

    classes: how many it tells apart; 0 if it is told none.
    some: a condition of one sample, as an example of what they look like.
    null: the condition of one sample that tells nothing; None if the model learned none.
    encoder: of its texts; None if it is told none.
    degradation: of the images it is told; None if it is told none.
    """

    classes: int = 0
    some: Condition = NOTHING
    null: Condition | None = None
    encoder: TextEncoder | None = None
    degradation: Degradation | None = None

    @property
    def num_labels(self) -> int:
        """Classes, and one for none if the model knows that."""
        return self.classes + (self.null is not None) if self.classes else 0

    def with_image(self, condition: Condition, x_0: Images, keys: Keys) -> Condition:
        """A condition in training, with the image that is made of each x_0."""
        if self.degradation is None:
            return condition
        made = self.degradation.of(x_0, keys)
        return condition._replace(image=made.image, noise=made.noise)


def conditioning(config: ConfigDict, shape: tuple[int, int, int], classes: int) -> Conditioning:
    """What the model of an experiment is told.

    Args:
      shape, classes: of the data.
    Raises:
      InputError: there are no classes to tell, a text encoder or degradation that is not there, or null_rate outside [0, 1).
    """
    told = config.condition
    if told.labels and not classes:
        raise InputError(
            "condition.labels = True, but the data have no classes: use data that have (a folder with a sub-folder a class, "
            "an .npz with labels, most TFDS sets), or set it to False."
        )
    if not 0 <= told.null_rate < 1:
        raise InputError(
            f"condition.null_rate = {told.null_rate} is not in [0, 1); classifier-free guidance uses 0.1 to 0.2."
        )
    some = null = NOTHING
    encoder = degradation = None
    if told.labels:
        some, null = some._replace(labels=np.int32(0)), null._replace(labels=np.int32(classes))
    if told.text.name:
        encoder = _encoder(told.text.name, json.dumps(options_of(told.text), sort_keys=True))
        features, mask = encoder.encode([""])
        some, null = (some._replace(text=features[0], mask=mask[0]), null._replace(text=features[0], mask=mask[0]))
    has_null = told.null_rate and jax.tree.leaves(null)
    if told.image.name:
        degradation = chosen("degradation", degradations, told.image)
        made = jax.eval_shape(degradation.of, jnp.zeros((1, *shape)), jax.random.split(jax.random.key(0), 1))
        image, noise = jax.tree.map(lambda rows: np.zeros(rows.shape[1:], rows.dtype), (made.image, made.noise))
        some = some._replace(image=image, noise=noise)
    return Conditioning(classes if told.labels else 0, some, null if has_null else None, encoder, degradation)


@functools.cache  # its weights are read once
def _encoder(name: str, options: str) -> TextEncoder:
    return call("text encoder", find("text encoder", "ddpm.text", name), options=json.loads(options))
