"""The training of an autoencoder: its step on networks of one number each, and whole runs of the command."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import run
from ml_collections import ConfigDict
from test_training import KEY, close, pixels

from ddpm import autoencoders, build, sharding, train_autoencoder
from ddpm.autoencoding import pixel_losses
from ddpm.data.images import Dataset
from ddpm.data.pipeline import Examples
from ddpm.data.pixels import to_images
from ddpm.errors import InputError
from ddpm.evaluate_autoencoder import figures, reconstructor
from ddpm.evaluation import perceptual, sources
from ddpm.evaluation.network import FeatureNetwork
from ddpm.models.autoencoders.encoder_decoder import Code
from ddpm.models.efficientnet import EfficientNetLite0
from ddpm.reconstruction import Reconstruction, reconstruction
from ddpm.rng import normal
from ddpm.trained_autoencoder import is_autoencoder, trained_autoencoder
from ddpm.training.autoencoder_step import autoencoder_step
from ddpm.training.optimizer import optimizer
from ddpm.training.state import init_state
from ddpm.training.step import ema_decay
from experiments import autoencoder_fashion

A, B, C, D = 0.8, 1.1, 0.3, -0.2  # of encoder, decoder and discriminator


def code(params, x, keys):
    z = params["a"] * x + 0.1 * normal(keys, x.shape[1:])
    return Code(z, 0.05 * jnp.mean(z**2, axis=(1, 2, 3)), jnp.full(len(x), 2.0), {"kl": jnp.mean(z)})


TINY_NETWORK = dict(
    code=code,
    latents=lambda params, x: params["a"] * x,
    features=lambda params, z: z,
    image=lambda params, h: params["out"]["kernel"] * h,
    discriminate=lambda params, x: params["c"] * x + params["d"],
)


def make(tx=None, *, accumulate=1, **options):
    options = TINY_NETWORK | dict(distance=pixel_losses.l2, weight=0.5) | options
    tx = tx or optimizer(
        optax.sgd, learning_rate=1.0, warmup_steps=0, clip_norm=1e9, accumulate=accumulate, parts=PARTS
    )
    params = {"autoencoder": {"a": jnp.array(A), "out": {"kernel": jnp.array(B)}}}
    if options["discriminate"]:
        params["discriminator"] = {"c": jnp.array(C), "d": jnp.array(D)}
    params["latent"] = {"mean": jnp.zeros(1), "std": jnp.ones(1)}
    return init_state(params, tx), jax.jit(
        autoencoder_step(tx=tx, ema_decay=ema_decay(0.9, False), accumulate=accumulate, **options)
    )


PARTS = train_autoencoder.PARTS


def test_each_network_follows_the_gradient_of_its_own_loss():
    state, step = make()
    new, metrics = step(state, Examples(pixels()), KEY)
    x = np.asarray(to_images(pixels()), np.float64)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(len(x)))
    eps = np.asarray(normal(keys, x.shape[1:]), np.float64)
    z = A * x + 0.1 * eps
    x_hat = B * z
    of_last = np.mean(2 * (x_hat - x) * z)  # d reconstruction / d kernel
    weight = abs(of_last) / (abs(np.mean(-C * z)) + 1e-6)  # Eq. 7 of VQGAN
    slope = 2 * (x_hat - x) - 0.5 * weight * C  # d loss / d x_hat, times the pixels
    expected = {"a": np.mean((slope * B + 0.1 * z) * x), "kernel": np.mean(slope * z)}
    assert float(metrics["adaptive_weight"]) == pytest.approx(weight, rel=1e-4)
    assert A - float(new.params["autoencoder"]["a"]) == pytest.approx(expected["a"], rel=1e-3)
    assert B - float(new.params["autoencoder"]["out"]["kernel"]) == pytest.approx(expected["kernel"], rel=1e-3)
    real, fake = 1.0 * (1 - (C * x + D) > 0), 1.0 * (1 + C * x_hat + D > 0)  # where the hinges bend
    of_judge = {"c": (np.mean(-real * x) + np.mean(fake * x_hat)) / 2, "d": (np.mean(fake) - np.mean(real)) / 2}
    assert C - float(new.params["discriminator"]["c"]) == pytest.approx(of_judge["c"], rel=1e-4)
    assert D - float(new.params["discriminator"]["d"]) == pytest.approx(of_judge["d"], abs=1e-6)
    assert float(metrics["reconstruction"]) == pytest.approx(np.mean((x_hat - x) ** 2), rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(np.mean((x_hat - x) ** 2) + 0.05 * np.mean(z**2), rel=1e-4)


def test_nothing_leaks_between_the_two():
    alone, adversarial = (make(**options)[1] for options in ({"discriminate": None}, {"weight": 0.0}))
    plain, judged = make(discriminate=None)[0], make()[0]
    plain, judged = alone(plain, Examples(pixels()), KEY)[0], adversarial(judged, Examples(pixels()), KEY)[0]
    close(plain.params["autoencoder"], judged.params["autoencoder"], 0)  # learns as if no discriminator were there
    assert judged.params["discriminator"]["c"] != C  # which does learn, and the same however much it is heard:
    heard = make()[1](make()[0], Examples(pixels()), KEY)[0]
    close(heard.params["discriminator"], judged.params["discriminator"], 0)
    assert heard.params["autoencoder"]["a"] != judged.params["autoencoder"]["a"]


def test_the_gradient_of_one_is_not_clipped_by_that_of_the_other():
    tx = optimizer(optax.sgd, learning_rate=1.0, warmup_steps=0, clip_norm=1.0, accumulate=1, parts=PARTS)
    params = {"autoencoder": jnp.zeros(2), "discriminator": jnp.zeros(2), "latent": jnp.zeros(2)}
    grads = {"autoencoder": jnp.float32([0.3, 0.4]), "discriminator": jnp.float32([30, 40]), "latent": jnp.ones(2)}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["autoencoder"], [-0.3, -0.4])
    np.testing.assert_allclose(updates["discriminator"], [-0.6, -0.8])
    np.testing.assert_array_equal(updates["latent"], 0)


def test_a_discriminator_is_neither_trained_nor_heard_before_its_start():
    state, step = make(start=2)
    plain, alone = make(discriminate=None)
    for n in range(3):
        before = jax.device_get(state.params["discriminator"])
        state, _ = step(state, Examples(pixels()), jax.random.fold_in(KEY, n))
        plain, _ = alone(plain, Examples(pixels()), jax.random.fold_in(KEY, n))
        same = [a == b for a, b in zip(before.values(), state.params["discriminator"].values(), strict=True)]
        assert all(same) == (n < 2)
        assert (state.params["autoencoder"]["a"] == plain.params["autoencoder"]["a"]) == (n < 2)


def test_statistics_are_those_of_the_latents_that_the_ema_gives():
    state, step = make()
    statistics, decays = np.array([0.0, 1.0]), [(1 + n) / (10 + n) for n in range(4)]
    for n in range(4):
        batch = pixels(16 + n)
        z = float(state.ema_params["autoencoder"]["a"]) * np.asarray(to_images(batch), np.float64)
        statistics = decays[n] * statistics + (1 - decays[n]) * np.array([z.mean(), (z**2).mean()])
        state, _ = step(state, Examples(batch), jax.random.fold_in(KEY, n))
        for params in (state.params, state.ema_params):
            assert float(params["latent"]["mean"][0]) == pytest.approx(statistics[0], abs=1e-6)
            assert float(params["latent"]["std"][0]) == pytest.approx(
                np.sqrt(statistics[1] - statistics[0] ** 2), rel=1e-5
            )


@pytest.mark.parametrize("what", ["loss", "gradient of the autoencoder", "gradient of the discriminator"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_not_finite_changes_nothing_and_is_counted(what, accumulate):
    def hollow(x):  # 0, its derivative is not finite
        return 0 * jnp.sqrt(0 * x)

    poison = {
        "loss": dict(distance=lambda x, x_hat: pixel_losses.l2(x, x_hat) / 0),
        "gradient of the autoencoder": dict(latents=lambda p, x: p["a"] * x, features=lambda p, z: z + hollow(p["a"])),
        "gradient of the discriminator": dict(discriminate=lambda p, x: p["c"] * x + hollow(p["d"])),
    }[what]
    tx = optimizer(optax.adam, learning_rate=1e-3, warmup_steps=0, clip_norm=1.0, accumulate=accumulate, parts=PARTS)
    state, step = make(tx, accumulate=accumulate, **poison)
    new, metrics = step(state, Examples(pixels()), KEY)
    assert not metrics["finite"] and new.skipped == 1 and new.batch == 1
    unchanged = dataclasses.replace(new, batch=state.batch, skipped=state.skipped)
    jax.tree.map(np.testing.assert_array_equal, vars(unchanged), vars(state))
    healthy, _ = make(tx, accumulate=accumulate)[1](new, Examples(pixels()), KEY)
    assert healthy.skipped == 0


def test_accumulation_is_the_mean_gradient_of_its_batches():
    state, step = make(discriminate=None, accumulate=2)
    moves, batches = [], [pixels()[:8], pixels()[8:]]
    for batch in batches:
        single, plain = make(discriminate=None)
        moves.append(plain(single, Examples(batch), KEY)[0].params["autoencoder"]["a"] - A)
    for batch in batches:
        state, _ = step(state, Examples(batch), KEY)
    assert float(state.params["autoencoder"]["a"]) == pytest.approx(A + np.mean(moves), rel=1e-5)


def test_one_and_eight_devices_agree():
    state, step = make()
    mesh = sharding.data_mesh()
    on_eight = jax.jit(step, in_shardings=(sharding.replicated(mesh), sharding.split(mesh), None))
    close(*[(vars(s), m) for s, m in (f(state, Examples(pixels()), KEY) for f in (step, on_eight))], 1e-5)


def small():
    config = autoencoder_fashion.get_config()
    config.data.name = "digits"
    config.autoencoder.kl.update(channels=8, channel_mult=(1, 2), latent_channels=2)
    return config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"autoencoder.name": "klm"}, "unknown autoencoder 'klm'. Did you mean 'kl'? Known: kl, taesd, vq."),
        ({"autoencoder.name": "taesd"}, "autoencoder 'taesd' comes trained: train 'kl' or 'vq'."),
        ({"autoencoder.pixel_loss": "l3"}, "unknown pixel loss 'l3'. Did you mean 'l2'? Known: l1, l2."),
        ({"autoencoder.discriminator_weight": -1.0}, "discriminator_weight = -1.0 must be at least 0."),
        (
            {"autoencoder.kl.channel_mult": (1,) * 5},
            "images of 8 x 8 are not divided by the 16 pixels that 5 levels make ",
        ),
    ],
)
def test_what_no_autoencoder_is_trained_by_is_refused(change, message):
    config = small()
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError) as caught:
        made = reconstruction(config, (8, 8, 1))
        train_autoencoder.train_step(config, made, build.gradient_transformation(config, PARTS))
    assert str(caught.value).startswith(message)


def test_figures_are_those_of_images_by_hand():
    """An autoencoder of 1 pixel a latent, whose decoder forgets an eighth of the range."""
    made = Reconstruction(
        None, 1, 1, lambda p, x: 3 * x + 1, lambda p, x, keys: Code(x, x[:, 0, 0, 0], jnp.full(len(x), 1.5), {}),
        lambda p, z: z, lambda p, h: (h - 1) / 3 - 0.25, None,
    )  # fmt: skip
    params = {"autoencoder": {}, "latent": {"mean": jnp.float32([1.0]), "std": jnp.float32([2.0])}}
    originals = np.random.default_rng(0).integers(64, 256, (11, 4, 4, 1), dtype=np.uint8)
    source = sources.of_dataset(Dataset(originals), "some")
    parts = list(reconstructor(made, 8, sharding.data_mesh())(params, source))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.testing.assert_array_equal(found["pixels"], originals - 32)  # 0.25 of a range of 2 is 31.875 levels
    z = 3 * (originals / 127.5 - 1) / 2
    np.testing.assert_allclose(found["z"], z, atol=1e-5)
    assert figures(found) == {
        "psnr": pytest.approx(20 * np.log10(255 / 32), rel=1e-5),
        "rate_bpd": 1.5,
        "latent_mean_farthest": pytest.approx(z.mean(), rel=1e-4),
        "latent_std_least": pytest.approx(z.std(), rel=1e-4),
        "latent_std_most": pytest.approx(z.std(), rel=1e-4),
    }


@pytest.mark.slow
def test_the_perceptual_distance_is_one(monkeypatch):
    params = EfficientNetLite0().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1), jnp.uint8))["params"]
    network = FeatureNetwork("efficientnet", "-", "", (), params, lambda params, pixels: {})
    monkeypatch.setattr(perceptual, "efficientnet", lambda path: network)
    distance = jax.jit(perceptual.perceptual_distance())
    x, y = to_images(pixels(1, 8)), -to_images(pixels(1, 8))
    assert distance(x, x) == 0 and 0.01 < distance(x, y) <= 4 * len(perceptual.LAYERS)
    np.testing.assert_allclose(distance(x, y), distance(y, x), rtol=1e-5)
    assert distance(x, x + 0.1 * (y - x)) < distance(x, y)


ARGUMENTS = [
    "--config=experiments/autoencoder_fashion.py",
    "--config.data.name=digits",
    "--config.training.batch_size=16",
    "--config.training.num_steps=20",
    "--config.training.log_every=5",
    "--config.training.sample_every=20",
    "--config.training.evaluate_every=10",
    "--config.training.save_every=5",
    "--config.optimizer.warmup_steps=5",
    "--config.evaluation.num=40",
    "--config.evaluation.features.name=pixels",
]
NETWORKS = {
    name: [f"--config.autoencoder.name={name}", *(f"--config.autoencoder.{name}.{option}" for option in options)]
    for name, options in {
        "kl": ("channels=8", "channel_mult=(1,2)"),
        "vq": ("channels=8", "channel_mult=(1,2)", "num_res_blocks=1", "codes=32"),
    }.items()
}
NETWORKS["vq"] += ["--config.autoencoder.discriminator_weight=0.5", "--config.autoencoder.discriminator_start=5"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_is_trained_evaluated_and_opened(tmp_path, name):
    code, out, err = run(*ARGUMENTS, *NETWORKS[name], f"--workdir={tmp_path}")
    assert code == 0 and f"model  autoencoder {name}: " in out, err
    assert (tmp_path / "samples" / "00000020.png").is_file()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "reconstruction", "psnr", "rate", {"kl": "kl", "vq": "codebook_loss"}[name]} <= rows[-1].keys()
    assert rows[-1]["reconstruction"] < rows[0]["reconstruction"]
    code, out, err = run("--mode=eval", f"--workdir={tmp_path}", "--reference=digits:test", "--num=100")
    assert code == 0 and "psnr" in out and "latent_std_most" in out and "fd " in out, err
    made = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert [row["provenance"]["generated"]["num"] for row in made] == [40, 40, 100]
    for mode, message in (
        (("sample",), f"error: {tmp_path} is the run of an autoencoder, which draws no images: --mode eval measures "),
        (("eval", "--sampler=ddim"), f"error: {tmp_path} is the run of an autoencoder: --sampler and --num_steps do "),
    ):
        code, _, err = run(f"--workdir={tmp_path}", f"--mode={mode[0]}", *mode[1:])
        assert code == 2 and err.splitlines()[-1].startswith(message)
    assert run("--mode=eval", f"--workdir={tmp_path}", "--step=best")[0] == 0
    assert run("--mode=report", f"--workdir={tmp_path}")[0] == 0
    assert f"autoencoder {name}: " in (tmp_path / "report.html").read_text()
    assert is_autoencoder(tmp_path)
    read = trained_autoencoder(tmp_path, 15 if name == "kl" else None)
    x = to_images(pixels(3, 8))
    z = jax.jit(read.encode)(read.params, x)
    assert z.shape == (3, 8 // read.factor, 8 // read.factor, read.channels)
    assert jax.jit(read.decode)(read.params, z).shape == x.shape
    plain = z * read.std[None, None, None] + read.mean[None, None, None]
    made = reconstruction(ConfigDict(read.config), (8, 8, 1))
    np.testing.assert_allclose(jax.jit(made.latents)(read.params["autoencoder"], x), plain, atol=1e-4)
    assert autoencoders.read(str(tmp_path)).factor == read.factor


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_as_the_whole_one(tmp_path):
    from test_resume import state

    arguments = [*ARGUMENTS, *NETWORKS["vq"], "--config.data.flip=True", "--config.training.evaluate_every=0"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(*arguments, f"--workdir={whole}")[0] == 0
    for steps in (3, 8, 20):  # before and after the discriminator starts
        code, _, err = run(*arguments, f"--workdir={broken}", f"--config.training.num_steps={steps}")
        assert code == 0, err
    a, b = state(whole, 20), state(broken, 20)
    assert a.keys() == b.keys() and any("discriminator" in key for key in a) and any("latent" in key for key in a)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
