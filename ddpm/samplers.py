"""The sampler of an experiment, and what its samples are asked for: classes, prompts, images of a file or of another run."""

import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm import build, datasets, sharding, trained
from ddpm.conditioning import Conditioning
from ddpm.data.images import Dataset, Facts
from ddpm.data.npz import npz
from ddpm.data.pipeline import permuted
from ddpm.data.pixels import to_images
from ddpm.degradation import block_means, rectangle
from ddpm.degradations import super_resolution
from ddpm.errors import InputError
from ddpm.guides import guides
from ddpm.names import options_of
from ddpm.objective import Diffusion
from ddpm.rng import per_index, stream
from ddpm.sampling.batched import BatchedSampler
from ddpm.sampling.conditions import Asked, of_classes
from ddpm.sampling.known import Given


def sampler(
    config: ConfigDict,
    made: Diffusion,
    facts: Facts,
    mesh: jax.sharding.Mesh,
    images: Callable[[], Dataset],
    noise: str = "sample",
) -> BatchedSampler:
    """The sampler of `config.sampler` along `config.grid`, guided by `config.guidance`.

    Args:
      facts: of what the model was trained on.
      images: whose captions, or whose worse twins, samples are asked for where nothing else is said.
      noise: name of the stream of its keys.
    """
    guided = guides(config, made, facts)
    drawn = build.batched_sampler(config, made, guided, facts, mesh)
    wanted = asked(config, made, facts.shape, guided.classes, images)
    return drawn.along(build.grid(config, made), wanted, guided.scales, noise)


def asked(
    config: ConfigDict,
    made: Diffusion,
    shape: tuple[int, int, int],
    classes: int,
    images: Callable[[], Dataset],
) -> Asked:
    """What samples are asked for, by `config.sampler`, `config.condition` and `config.known`; arguments as for `sampler`.

    Raises:
      InputError: something that the model cannot be asked for, or images that do not fit it.
    """
    labels = of_classes(classes, tuple(config.sampler.labels))
    texts = _texts(config, made, images)
    worse = _worse(config, made, shape, images)
    degradation = made.told.degradation

    def rows(seed, indices):
        condition = labels.rows(seed, indices)
        features, mask = texts(seed, indices)
        condition = condition._replace(text=features, mask=mask)
        if degradation is None:
            return condition
        keys = per_index(stream(seed, "degradation"), jnp.asarray(indices))
        told = degradation.given(*worse(seed, indices), config.sampler.given_noise, keys)
        return condition._replace(image=told.image, noise=told.noise)

    def given(seed, indices):
        if not config.known.name and not (degradation and degradation.needs_known):
            return None
        image, pixels = worse(seed, indices)
        factor = shape[0] // image.shape[1]
        return Given(image.repeat(factor, axis=1).repeat(factor, axis=2), pixels)

    said = labels.said or bool(config.sampler.prompts) or bool(degradation and config.sampler.given)
    return Asked(rows, said, given)


def _texts(config, made, images):
    encoder, prompts = made.told.encoder, tuple(config.sampler.prompts)
    if prompts:
        features, mask = encoded(made.told, prompts)
        return lambda seed, indices: (features[indices % len(prompts)], mask[indices % len(prompts)])

    if encoder is None:
        return lambda seed, indices: (None, None)

    @functools.cache
    def of_captions():
        told = datasets.conditions(made, images())
        return told.text, told.mask

    def drawn(seed, indices):
        features, mask = of_captions()
        chosen = _chosen(seed, indices, len(features))
        return features[chosen], mask[chosen]

    return drawn


def encoded(told: Conditioning, prompts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Features and mask of texts for a model.

    Raises:
      InputError: the model is told none.
    """
    if told.encoder is None:
        raise InputError(
            f"prompts such as {prompts[0]!r} are for a model that is told texts: train one with condition.text.name, "
            "or ask this one for --labels if it is told classes."
        )
    return told.encoder.encode(prompts)


def _worse(config, made, shape, images):
    """(seed, indices) -> (worse images in [-1, 1], which of their pixels are known or None)."""
    name, degradation = config.known.name, made.told.degradation
    if not name and degradation is None:
        if config.sampler.given:
            raise InputError(
                f"sampler.given = {config.sampler.given!r} does nothing: the model is told no image. Say what is known of it "
                "with known.name='inpainting', 'colourisation' or 'super_resolution'."
            )
        return None
    height, width, channels = shape
    if config.latents.autoencoder:
        raise InputError(
            f"known.name = {name!r} or condition.image: what is known of pixels is not known of latents; use a model of pixels."
        )
    if name == "colourisation" and channels == 1:
        raise InputError("known.name = 'colourisation' leaves nothing to draw: images of one channel are grey.")
    size = height, width
    if degradation or name == "super_resolution":
        size = (degradation or super_resolution(**options_of(config.known))).size(size)
    needs_known = degradation.needs_known if degradation else name == "inpainting"
    if config.sampler.given:
        return _given(config, (*size, channels), needs_known)

    @functools.cache
    def dataset():
        return images()

    def drawn(seed, indices):
        whole = dataset().images
        chosen = _chosen(seed, indices, len(whole))
        x_0 = to_images(jnp.asarray(np.stack([whole[int(i)] for i in chosen])))
        if needs_known:
            keys = per_index(stream(seed, "known"), jnp.asarray(indices))
            return np.asarray(x_0), ~np.asarray(jax.vmap(lambda key: rectangle(key, (height, width)))(keys))
        return np.asarray(block_means(x_0, height // size[0])), None

    return drawn


def _given(config, shape, needs_known):
    path = pathlib.Path(config.sampler.given).expanduser()
    if path.is_dir():
        if needs_known:
            raise InputError(
                f"sampler.given = {str(path)!r} is a run, which does not say what pixels are known: give an .npz."
            )
        return _of_run(config, path, shape)
    if not path.is_file():
        raise InputError(f"sampler.given = {str(path)!r} is no file: give an .npz of images, or the workdir of a run.")
    images = np.asarray(npz(path=str(path), labels="", captions="").images)
    if images.shape[1:] != shape:
        raise InputError(
            f"{path} holds images of shape {images.shape[1:]}; those that are given here must be {shape} (height, width, channels)."
        )
    given, known = np.asarray(to_images(jnp.asarray(images))), None
    if needs_known:
        form = f"bool [{len(given)} or 1, {', '.join(map(str, shape[:2]))}]"
        with np.load(path) as stored:
            if "known" not in stored.files:
                raise InputError(f"{path} has no array 'known', which says which pixels are known: {form}.")
            known = stored["known"]
        if known.dtype != bool or known.shape not in ((1, *given.shape[1:3]), given.shape[:3]):
            raise InputError(
                f"array 'known' of {path} is {known.dtype} of shape {known.shape}; it must say which pixels are known, {form}."
            )
        known = np.broadcast_to(known, given.shape[:3])
    count = len(given)
    return lambda seed, indices: (given[indices % count], None if known is None else known[indices % count])


def _of_run(config, workdir, shape):
    """Images that another run draws, asked for the same classes and prompts by the same seed: a cascade."""
    run = trained.read(workdir)
    section, made = run.config.sampler, run.diffusion
    section.labels = (config.sampler.labels if made.told.classes else ()) or section.labels
    section.prompts = (config.sampler.prompts if made.told.encoder else ()) or section.prompts
    mesh = sharding.data_mesh()
    # Noise of its own: of one key, the noise of a small image is the beginning of that of a large one.
    base = sampler(
        run.config, made, run.facts, mesh, lambda: datasets.training_set(run.config), noise=f"sample of {shape}"
    )
    if base.image_shape != shape:
        raise InputError(
            f"{workdir} draws images of shape {base.image_shape}; the images that are given here must be {shape}."
        )
    params = jax.device_put(run.params, sharding.replicated(mesh))

    def drawn(seed, indices):
        first, last = int(indices.min()), int(indices.max())
        found = np.concatenate([batch.images for batch in base.batches(params, last + 1, seed=seed, first=first)])
        return np.asarray(to_images(jnp.asarray(found[indices - first]))), None

    return drawn


def _chosen(seed, indices, count):
    """Which of `count` images or texts samples are asked for: each once, in an order of the seed, before one comes again."""
    at = jnp.asarray(indices, jnp.uint32) % count
    return np.asarray(_permuted(stream(seed, "asked"), at, count))


@functools.partial(jax.jit, static_argnums=2)  # its loop would be compiled for every batch
def _permuted(key, at, count):
    return jax.vmap(permuted, in_axes=(None, 0, None))(key, at, count)
