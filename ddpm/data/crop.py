"""Images of any size and mode to squares of one size."""

import numpy as np
from PIL import Image, ImageOps


def square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels]: the shorter side resized to `size` (Lanczos, antialiased), the middle cut out.

    Transparency is laid on white. `channels` is 1 (grey) or 3 (colour).
    """
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size), method=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, channels)
