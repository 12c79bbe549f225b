"""A classifier trained on the data set itself: features where no pretrained network is at hand."""

import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm.cache import alone, cache_directory, keep, kept
from ddpm.data.decoded import in_memory, stacked
from ddpm.data.images import Dataset, Labels
from ddpm.data.pixels import to_images
from ddpm.evaluation.network import FeatureNetwork
from ddpm.evaluation.sources import digest
from ddpm.models.classifier import SmallClassifier
from ddpm.rng import stream

BATCH, LEARNING_RATE, MAX_IMAGES = 128, 2e-3, 20_000
WHOLE = 2**30  # bytes of a set that is read whole, from where it is kept, though not all of it is used


def classifier(*, dataset: Dataset, steps: int = 500) -> FeatureNetwork:
    """A small classifier of the data set's classes; of quarter turns (Gidaris et al. 2018) where it has no labels.

    Trained once, in a minute or two, and kept in the cache; the seed is fixed, yet other machines may round to another
    network. Figures are comparable where its SHA-256 is the same.

    Args:
      dataset: the real images.
      steps: of Adam with batches of 128.
    """
    labels = None if dataset.labels is None else stacked(Labels(dataset.labels))
    model = SmallClassifier(4 if labels is None else len(dataset.classes))
    shape = dataset.facts.shape
    abstract = jax.eval_shape(lambda: _init(model, shape))
    taught = {
        "images": dataset.sha256,
        "labels": None if labels is None else labels.tolist(),
        "classes": dataset.classes,
    }
    file = cache_directory("classifiers") / f"{digest(taught)}-{steps}.npz"
    params = _load(file, abstract)
    if params is None:
        params = _train(model, dataset, labels, steps)
        with alone(file):
            keep(file, jax.tree.leaves(params))
    sha = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))).hexdigest()[:16]

    def apply(params, images):
        return model.apply({"params": params}, to_images(images))

    rule = f"{len(dataset.classes)} classes" if labels is not None else "quarter turns"
    rule = f"trained on {rule} of the real images, {steps} steps; pixels in [-1, 1], no resize"
    return FeatureNetwork("classifier", sha, rule, ("pool", "logits"), params, apply)


def _init(model, shape):
    return model.init(stream(0, "classifier"), jnp.zeros((1, *shape)))["params"]


def _load(file: pathlib.Path, abstract):
    stored = kept(file)
    if stored is None:
        return None
    leaves, structure = jax.tree.flatten(abstract)
    fits = [leaf.shape for leaf in stored] == [leaf.shape for leaf in leaves]
    return jax.tree.unflatten(structure, stored) if fits else None


def _train(model, dataset, labels, steps):
    count = min(len(dataset.images), MAX_IMAGES)
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset.images))[:count])
    small = dataset.nbytes <= WHOLE
    images = jnp.asarray(in_memory(dataset)[chosen] if small else stacked(_Some(dataset.images, chosen)))
    labels = None if labels is None else jnp.asarray(labels[chosen])
    tx = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    key = stream(0, "classifier batches")

    @jax.jit
    def step(params, opt_state, images, n):
        index_key, turn_key = jax.random.split(jax.random.fold_in(key, n))
        indices = jax.random.randint(index_key, (BATCH,), 0, count)
        x = to_images(images[indices])
        y = jax.random.randint(turn_key, (BATCH,), 0, 4) if labels is None else labels[indices]
        if labels is None:
            x = jnp.stack([_turned(x, i) for i in range(4)])[y, jnp.arange(BATCH)]

        def loss(params):
            logits = model.apply({"params": params}, x)["logits"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    params = jax.jit(lambda: _init(model, dataset.facts.shape))()
    opt_state = tx.init(params)
    for n in range(steps):
        params, opt_state = step(params, opt_state, images, n)
    return jax.device_get(params)


def _turned(x, turns):
    # An image that is not square is mirrored instead: left to right, upside down, both.
    if x.shape[1] == x.shape[2]:
        return jnp.rot90(x, turns, axes=(1, 2))
    return jnp.flip(x, [axis for axis, on in ((2, turns & 1), (1, turns & 2)) if on])


class _Some:
    """The images of a sequence at some indices."""

    def __init__(self, images, indices):
        self._images, self._indices = images, indices

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, i):
        return self._images[int(self._indices[i])]
