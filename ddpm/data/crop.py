"""Images of any size and mode to squares of one size."""

import numpy as np
from PIL import Image, ImageOps


def square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels]: the shorter side resized to `size` (Lanczos, antialiased), the middle cut out.

    Transparency is laid on white. `channels` is 1 (grey) or 3 (colour).

    Raises:
      ValueError: pixels of 32 bits, whose white is unknown.
    """
    image = ImageOps.fit(_eight_bits(image, channels), (size, size), method=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, channels)


def as_is(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 [height, width, channels]: the pixels of an image of any mode, as `square` reads them."""
    image = _eight_bits(image, channels)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    image = ImageOps.exif_transpose(image)  # cameras note which way is up instead of turning the pixels
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits, mode {image.mode}; images have 8 or 16 bits a channel")
    if image.mode.startswith("I;16"):  # PIL would clip at 255
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")
