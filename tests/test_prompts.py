"""Texts: from captions to the network, left out at random, asked for in turn."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddpm
from ddpm import build, conditioning, datasets, objective
from ddpm.condition import Condition
from ddpm.data.pipeline import Examples
from ddpm.diffusion import predictions
from ddpm.diffusion.model import Model
from ddpm.errors import InputError
from ddpm.rng import stream
from ddpm.samplers import asked
from ddpm.text.encoder import TextEncoder
from ddpm.train import train
from ddpm.training.state import init_state
from experiments import digits

LENGTH, WIDTH = 4, 6
CAPTIONS = [f"{what} {i % 3}" for i in range(24) for what in ("digit" if i % 2 else "figure",)]
SHORT = dict(sampler="ddim", num_steps=3)


def encode(texts):
    """Any features, the same for the same text; a token a word and one at the end."""
    features, mask = np.zeros((len(texts), LENGTH, WIDTH), np.float32), np.zeros((len(texts), LENGTH), bool)
    for i, text in enumerate(texts):
        tokens = len(text.split()) + 1
        features[i, :tokens] = np.random.default_rng(zlib.crc32(text.encode())).normal(size=(tokens, WIDTH))
        mask[i, :tokens] = True
    return features, mask


@pytest.fixture(autouse=True, scope="module")
def encoder(tmp_path_factory):
    """A text encoder without weights, and a cache of its own."""
    fake, cache = TextEncoder("fake", "0" * 16, LENGTH, WIDTH, encode, None), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditioning, "_encoder", lambda name, options: fake)
        patch.setattr(datasets, "cache_directory", lambda name: cache / name)
        yield


def config_of(place):
    config = digits.get_config()
    config.model.unet.update(channels=8, channel_mult=(1,), attention_resolutions=(8,))
    config.optimizer.update(warmup_steps=0, learning_rate=0.02)
    config.ema.decay = 0.0
    config.training.update(batch_size=16, num_steps=2, sample_every=0, evaluate_every=0)
    config.sampler.update(num_steps=5, batch_size=8)
    config.condition.text.name = "minilm"
    config.data.name, config.data.npz.path = "npz", str(place / "captioned.npz")
    return config


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run of two steps on images with captions."""
    place = tmp_path_factory.mktemp("prompts")
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    np.savez(place / "captioned.npz", images, captions=np.array(CAPTIONS))
    assert train(config_of(place), place / "run", accept_changes=False) == 0
    run = ddpm.load(place / "run")
    run.params = jax.tree.map(lambda p: p + 0.05, run.params)  # no layer is zero
    return run


def test_prompts_are_drawn_in_turn_and_another_compiles_nothing(opened):
    both = opened.sample(8, prompts=["digit 1", "a figure 2"], **SHORT)
    first, second = (opened.sample(8, prompts=text, **SHORT) for text in ("digit 1", "a figure 2"))
    np.testing.assert_array_equal(both[::2], first[::2])
    np.testing.assert_array_equal(both[1::2], second[1::2])
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    (program,) = opened._samplers.values()
    assert len(program[0]._compiled) == 1
    guided = opened.sample(8, prompts="digit 1", guidance_scale=4, **SHORT)
    assert (guided != first).any() and len(opened._samplers) == 2


def test_a_noised_image_is_denoised_by_what_it_is_told(opened):
    x_t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    both, _ = opened.denoise(x_t, 500, prompts=["digit 1", "a figure 2"])
    first, _ = opened.denoise(x_t, 500, prompts="digit 1")
    np.testing.assert_allclose(both[0], first[0], atol=1e-5)
    assert np.abs(both[1] - first[1]).max() > 1e-3


def test_without_prompts_captions_of_the_data_are_drawn_each_as_often(opened):
    wanted = functools.partial(asked, opened.config, opened._diffusion, opened.facts.shape, 0)
    rows = wanted(lambda: datasets.dataset(opened.config))
    told = rows.rows(0, np.arange(24, dtype=np.uint32))
    features, mask = encode(CAPTIONS)
    assert not rows.said and told.labels is None and told.image is None
    assert sorted(row.tobytes() for row in told.text) == sorted(row.tobytes() for row in features)
    np.testing.assert_array_equal(told.mask, (told.text != 0).any(axis=-1))
    assert [row.tobytes() for row in told.text] != [row.tobytes() for row in features]
    (last,) = opened.sampler(**SHORT).batches(opened.params, 9, seed=0, first=8)
    np.testing.assert_array_equal(last.images, opened.sample(9, **SHORT)[8:])


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_texts_are_left_out_at_the_rate(opened, rate):
    config, seen, n = ddpm.config.from_json(ddpm.config.to_json(opened.config)), [], 4000
    config.condition.null_rate = rate
    made = objective.diffusion(config, opened.facts.shape)

    def model(params, condition, *, train, key):
        seen.append(condition)
        return Model(made.process, predictions.eps(), lambda x, t: params["a"] * x)

    tx = optax.sgd(0.1)
    step = build.train_step(config, made._replace(model=model), tx)
    features, mask = (rows[np.arange(n) % 24] for rows in encode(CAPTIONS))
    with jax.disable_jit():
        state = init_state({"a": jnp.array(0.5)}, tx)
        step(state, Examples(jnp.zeros((n, 2, 2, 1), jnp.uint8), Condition(None, features, mask)), stream(0, "train"))
    (of_null,), (mask_of_null,) = encode([""])
    text, tokens = np.asarray(seen[0].text), np.asarray(seen[0].mask)
    dropped = (text == of_null).all(axis=(1, 2))
    assert abs(dropped.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_array_equal(tokens, np.where(dropped[:, None], mask_of_null, mask))
    np.testing.assert_array_equal(text[~dropped], features[~dropped])
    assert (made.told.null is None) == (rate == 0)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_is_no_share_is_refused(opened, rate):
    config = ddpm.config.from_json(ddpm.config.to_json(opened.config))
    config.condition.null_rate = rate
    with pytest.raises(InputError) as caught:
        objective.diffusion(config, opened.facts.shape)
    assert str(caught.value) == (
        f"condition.null_rate = {rate} is not in [0, 1); classifier-free guidance uses 0.1 to 0.2."
    )
