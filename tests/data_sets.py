"""What the tests of the data layer share: small sets, and the sentence a mistake is answered with."""

import numpy as np
import pytest

from ddpm.errors import InputError


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


RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
