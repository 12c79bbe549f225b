"""What an autoencoder gives back of photographs: the ratio of signal to noise, and a picture.

python benchmarks/autoencoders.py AUTOENCODER [--size 256] [--out autoencoder.png]

AUTOENCODER is whatever latents.autoencoder takes: a run's workdir, a folder of diffusers' AutoencoderKL, a TAESD. The
photographs are scikit-learn's two and, after `pip install --no-deps scikit-image`, that package's, all resized to squares.
"""

import argparse
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from ddpm import autoencoders, pictures
from ddpm.data.pixels import to_images, to_pixels

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")  # in colour, and in the package itself


def main() -> None:
    """Encodes, decodes, prints and paints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("autoencoder")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("autoencoder.png"))
    arguments = parser.parse_args()
    made = autoencoders.read(arguments.autoencoder)
    there_and_back = jax.jit(lambda params, x: to_pixels(made.decode(params, made.encode(params, to_images(x)))))
    size, rows = arguments.size, []
    latents = size**2 // made.factor**2 * made.channels
    print(f"{size} x {size} x {made.colours} pixels to {latents} numbers\n\n| photograph | PSNR |\n|---|---:|")
    for name, image in photographs().items():
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        image = np.asarray(image.convert("L" if made.colours == 1 else "RGB")).reshape(size, size, made.colours)
        back = np.asarray(there_and_back(made.params, jnp.asarray(image)[None]))[0]
        error = np.mean((back.astype(float) - image) ** 2)
        print(f"| {name} | {10 * np.log10(255**2 / error):.1f} dB |", flush=True)
        rows.append(np.stack([image, back]))
    pairs = np.stack(rows).swapaxes(0, 1)  # above each other
    pictures.save_png(arguments.out, pictures.grid(pairs.reshape(-1, *pairs.shape[2:]), len(rows)))
    print(f"\npicture in {arguments.out}: the photographs, and what comes back of them below")


def photographs() -> dict[str, Image.Image]:
    """By name."""
    found = load_sample_images()
    pairs = zip(found.filenames, found.images, strict=True)
    named = {pathlib.Path(name).stem: Image.fromarray(image) for name, image in pairs}
    spec = importlib.util.find_spec("skimage")
    for name in PHOTOGRAPHS if spec else ():
        named[name] = Image.open(pathlib.Path(spec.submodule_search_locations[0]) / "data" / f"{name}.png").convert(
            "RGB"
        )
    return named


if __name__ == "__main__":
    main()
