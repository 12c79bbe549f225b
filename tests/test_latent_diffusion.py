"""A model in the latent space of an autoencoder: encoded, trained, drawn, inverted, evaluated; and what does not go together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_sets import mistake, noise
from test_taesd import written

import ddpm
from ddpm import autoencoders, datasets, latent_space, modes, sharding
from ddpm.data.images import Scale
from ddpm.train import train

SHORT = dict(sampler="ddim", num_steps=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small TAESD, and 24 images of 16 x 16 in two classes."""
    path = tmp_path_factory.mktemp("latents")
    (path / "tae").mkdir()
    written(path / "tae")
    np.savez(path / "images.npz", arr_0=noise(0, 24, 16, 16, 3), arr_1=np.arange(24) % 2)
    return path


def of(config, place):
    config.data.name, config.data.npz.path = "npz", str(place / "images.npz")
    config.latents.update(autoencoder=str(place / "tae"), path=str(place / "encoded"), batch_size=8)
    config.condition.labels = True
    config.sampler.clip = False
    config.evaluation.features.name = "pixels"
    return config


@pytest.fixture
def config(tiny, place):
    return of(tiny, place)


@pytest.fixture(scope="module")
def opened(place):
    """A run of a few steps."""
    from experiments import digits

    config = of(digits.get_config(), place)
    config.model.unet.update(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    config.training.update(batch_size=8, num_steps=4, sample_every=4, evaluate_every=0)
    config.sampler.batch_size = 8
    assert modes.encode(config) == 0 and train(config, place / "run", accept_changes=False) == 0
    assert (place / "run" / "samples" / "00000004.png").is_file()
    return ddpm.load(place / "run")


def test_samples_are_images_and_each_is_the_same_in_any_number(opened):
    images = opened.sample(5, labels=1, guidance_scale=2, **SHORT)
    assert images.shape == (5, 16, 16, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(images[:2].astype(int), opened.sample(2, labels=1, guidance_scale=2, **SHORT), atol=1)
    assert opened.path(2, **SHORT).shape == (4, 2, 16, 16, 3)


def test_what_is_decoded_is_what_the_autoencoder_makes_of_the_latents_as_they_were(opened):
    autoencoder, space = autoencoders.read(opened.config.latents.autoencoder), opened._space
    images = noise(1, 3, 16, 16, 3)
    raw = np.asarray(jax.jit(autoencoder.encode)(autoencoder.params, images / np.float32(127.5) - 1))
    np.testing.assert_allclose(space.encode(images), opened.facts.scale.down(raw), atol=1e-4)
    shown = np.asarray(jax.jit(autoencoder.decode)(autoencoder.params, raw))
    expected = np.round(np.clip((shown + 1) * 127.5, 0, 255))
    np.testing.assert_allclose(space.decode(space.encode(images)), expected, atol=1)


def test_images_are_inverted_and_come_back_as_the_autoencoder_gives_them_back(opened, place):
    run, images = ddpm.load(place / "run"), noise(2, 2, 16, 16, 3)
    run.params = jax.tree.map(jnp.zeros_like, run.params)  # eps_hat = 0: the ODE is x_t = alpha_t x_0
    scaled = run._space.encode(images)
    x_T = run.encode(images, num_steps=4)
    np.testing.assert_allclose(x_T, scaled * np.float32(run.process.alpha(1000) / run.process.alpha(1)), rtol=1e-4)
    np.testing.assert_allclose(run.decode(x_T, num_steps=4).astype(int), run._space.decode(scaled), atol=1)


def test_figures_are_of_images_in_pixels(opened):
    opened.config.evaluation.update(num=16, num_reference=0, metrics=("fid",))
    record = opened.evaluate(**SHORT)
    assert record["provenance"]["generated"]["name"].endswith("run") and record["figures"]["fd"] > 0
    assert record["provenance"]["reference"]["shape"] == [16, 16, 3]


def test_another_autoencoder_is_refused(opened, config):
    scale = Scale(opened.facts.scale.mean, opened.facts.scale.std, "1" * 16)
    path, sha256 = config.latents.autoencoder, opened.facts.scale.autoencoder
    assert mistake(latent_space.latent_space, config, scale, sharding.data_mesh()) == (
        f"the autoencoder at {path} ({sha256}) is another than that of the latents ({'1' * 16}): give the path of that one as "
        "latents.autoencoder."
    )


def test_an_autoencoder_that_was_moved_is_found_where_it_is_now(opened, place, monkeypatch):
    (place / "moved").mkdir(exist_ok=True)
    written(place / "moved")
    run = ddpm.load(place / "run")
    run.config.latents.autoencoder = str(place / "moved")
    assert run.sample(1, **SHORT).shape == (1, 16, 16, 3)
    assert "latents" in modes.TAKEN


def test_training_goes_on_with_its_own_latents_only(opened, config, place, tmp_path):
    (tmp_path / "other").mkdir()
    written(
        tmp_path / "other",
        lambda side, arrays: arrays.update({"0.bias": arrays["0.bias"] + 1}) if side == "encoder" else None,
    )
    other = of(opened.config.copy_and_resolve_references(), place)
    other.latents.update(autoencoder=str(tmp_path / "other"), path=str(tmp_path / "encoded"))
    assert modes.encode(other) == 0
    said = mistake(train, other, place / "run", accept_changes=False)
    assert said.startswith(
        f"{place / 'run'} was trained on latents of autoencoder {opened.facts.scale.autoencoder}, scale "
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data.flip": True},
            "data.flip = True mirrors images, and latents of mirrored images are others: set it to False.",
        ),
        ({"latents.path": ""}, "latents.autoencoder = '{place}/tae' and latents.path = '': name the autoencoder, and "),
        (
            {"latents.path": "{place}/images.npz"},
            "latents.path = '{place}/images.npz' is where the images are: name a ",
        ),
        (
            {"latents.path": "{place}/nowhere"},
            "no latents in '{place}/nowhere', or not all of them: run the same --config ",
        ),
    ],
)
def test_latents_that_cannot_be_are_told_of(opened, config, place, change, message):
    config.update_from_flattened_dict(
        {k: v.format(place=place) if isinstance(v, str) else v for k, v in change.items()}
    )
    assert mistake(datasets.training_set, config).startswith(message.format(place=place))


def test_latents_of_data_that_changed_are_refused(opened, config, place, tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=noise(0, 25, 16, 16, 3), arr_1=np.arange(25) % 2)
    before = config.data.npz.path
    config.data.npz.path = str(tmp_path / "images.npz")
    assert mistake(datasets.training_set, config).startswith(
        f"{place / 'encoded'} holds latents of {before} (24 of shape "
    )


def test_latents_are_enough_to_train_on_and_that_is_told(opened, config, place, caplog):
    config.data.npz.path = str(place / "away" / "images.npz")
    config.training.update(batch_size=8, num_steps=1, evaluate_every=0)
    assert train(config, place / "without_images", accept_changes=False) == 0
    assert "the images are not at hand" in caplog.text


def test_pixels_and_latents_do_not_mix(opened):
    for choice, message in [
        (
            dict(known=dict(name="inpainting")),
            "known.name = 'inpainting' or condition.image: what is known of pixels is not ",
        ),
    ]:
        assert mistake(opened.sample, 2, **choice, **SHORT).startswith(message)
    opened.config.sampler.clip = True
    try:
        assert mistake(opened.sample, 2, sampler="ddim", num_steps=4) == (
            "sampler.clip = True clips x0_hat to [-1, 1], and latents have no such range: set it to False."
        )
    finally:
        opened.config.sampler.clip = False
    assert mistake(opened.likelihood, "vlb_bpd").startswith(
        "vlb_bpd is of discrete pixels, and this model is one of latents"
    )
