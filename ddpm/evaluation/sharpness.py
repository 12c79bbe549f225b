"""How sharp images are: the number for blurry samples, as a ratio to real images."""

import numpy as np

from ddpm.errors import InputError


def sharpness(images: np.ndarray) -> np.ndarray:
    """[n]: mean squared Laplacian of each image, x[i+1, j] + x[i-1, j] + x[i, j+1] + x[i, j-1] - 4 x[i, j].

    White noise of deviation s has 20 s^2; blur lowers it, noise raises it.

    Args:
      images: uint8 [n, height, width, channels], 3 x 3 or larger; the unit is the pixels' range, [0, 1].
    Raises:
      InputError: smaller images.

    Pertuz, Puig and Garcia 2013: LAP1, the energy of the Laplacian.
    """
    if min(images.shape[1:3]) < 3:
        raise InputError(f"images of {images.shape[1]} x {images.shape[2]} have no inner pixel; take 3 x 3 or larger.")
    x = images / 255
    laplacian = x[:, 2:, 1:-1] + x[:, :-2, 1:-1] + x[:, 1:-1, 2:] + x[:, 1:-1, :-2] - 4 * x[:, 1:-1, 1:-1]
    return (laplacian**2).mean(axis=(1, 2, 3))
