"""A run as a notebook opens it."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, run

import ddpm
from ddpm.errors import InputError
from ddpm.evaluation import records
from ddpm.sampling.batched import BatchedSampler
from ddpm.training import checkpoint


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Trained on two devices, opened on eight."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    code, _, err = run(*TINY, f"--workdir={path}", "--config.training.num_steps=10", devices=2)
    assert code == 0, err
    return path


def test_a_run_has_its_configuration_step_and_ema_parameters_on_all_devices(workdir):
    opened = ddpm.load(workdir)
    assert (
        opened.step == 10 and opened.config.model.unet.channels == 8 and opened.config.model.unet.channel_mult == (1,)
    )
    assert opened.facts.shape == (8, 8, 1) and opened.facts.count == 1500
    ema = checkpoint.read_ema_params(workdir / "checkpoints", 10)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(opened.params), ema)
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(opened.params)} == {8}
    assert ddpm.load(str(workdir), step=5).step == 5


def test_its_samples_are_those_of_the_command(workdir):
    images = ddpm.load(workdir).sample(3, seed=7, sampler="ddim", num_steps=4)
    assert images.shape == (3, 8, 8, 1) and images.dtype == np.uint8
    arguments = ("--mode=sample", "--num=3", "--seed=7", "--config.sampler.name=ddim", "--config.sampler.num_steps=4")
    assert run(*TINY, f"--workdir={workdir}", *arguments)[0] == 0
    drawn = np.load(workdir / "samples" / "step10_ddim4_seed7.npz")["arr_0"]
    assert np.abs(images.astype(int) - drawn).max() <= 1  # one device there, eight here


def test_options_of_a_sampler_are_heeded_and_its_program_is_kept(workdir):
    opened = ddpm.load(workdir)
    plain, noisy = (opened.sample(2, sampler="ddim", num_steps=4, eta=eta) for eta in (0.0, 1.0))
    assert (plain != noisy).any()
    assert opened.sampler(sampler="ddim")._compiled is opened.sampler(sampler="ddim", num_steps=4)._compiled
    with pytest.raises(InputError, match="unknown sampler 'dimm'. Did you mean 'ddim'?"):
        opened.sample(2, sampler="dimm")
    with pytest.raises(InputError, match=r"^num_steps = 2.5 is no whole number.$"):
        opened.sample(1, num_steps=2.5)


def test_the_optimal_variance_of_a_run_is_measured_and_makes_images(workdir):
    opened = ddpm.load(workdir)
    saturated = [
        np.isin(opened.sample(16, sampler="ancestral", num_steps=5, variance=variance), (0, 255)).mean()
        for variance in ("posterior", "optimal")
    ]
    assert saturated[1] < saturated[0] + 0.2


def test_images_are_encoded_and_decoded_again(workdir):
    opened = ddpm.load(workdir)
    images = opened.sample(3, sampler="ddim", num_steps=50)
    x_T = opened.encode(images, num_steps=50)
    assert x_T.shape == images.shape and x_T.dtype == np.float32
    back = opened.decode(x_T, num_steps=50)
    assert back.dtype == np.uint8 and np.abs(back.astype(int) - images).mean() < 12
    np.testing.assert_array_equal(opened.encode(images[1:2], num_steps=50), x_T[1:2])
    with pytest.raises(InputError, match=r"^sampler 'ancestral' draws noise: encode with ddim at eta 0, "):
        opened.encode(images, sampler="ancestral")
    with pytest.raises(InputError, match=r"^images are float32 of shape \(8, 8, 1\); they must be uint8 of shape "):
        opened.encode(x_T)


def test_denoise_clips_as_it_is_told_now(workdir):
    opened = ddpm.load(workdir)
    x_t = 5 * jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    clipped, _ = opened.denoise(x_t, 900)
    opened.config.sampler.clip = False
    free, _ = opened.denoise(x_t, 900)
    assert np.abs(clipped).max() <= 1 < np.abs(free).max()
    with pytest.raises(InputError, match=r"^labels are for a model that is told classes"):
        opened.denoise(x_t, 900, 1)


def test_denoise_gives_what_the_noised_image_is_made_of(workdir):
    opened = ddpm.load(workdir)
    x_t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    for t in (jnp.array([3, 900]), jnp.array(500), 500):
        x0_hat, eps_hat = opened.denoise(x_t, t)
        alpha, sigma = (
            np.broadcast_to(c, 2).reshape(2, 1, 1, 1) for c in (opened.process.alpha(t), opened.process.sigma(t))
        )
        np.testing.assert_allclose(alpha * x0_hat + sigma * eps_hat, x_t, atol=1e-5)
        assert np.abs(x0_hat).max() <= 1


def test_a_broken_newest_checkpoint_is_passed_over_and_left_alone(workdir, tmp_path, caplog):
    copy = copied(workdir, tmp_path)
    break_checkpoint(copy, 10)
    assert ddpm.load(copy).step == 5
    assert "checkpoint 10 is broken" in caplog.text and (copy / "checkpoints" / "10").exists()


def copied(workdir, tmp_path):
    copy = tmp_path / "copy"
    for file in filter(pathlib.Path.is_file, (workdir / "checkpoints").rglob("*")):
        target = copy / file.relative_to(workdir)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return copy


def break_checkpoint(workdir, step):
    (workdir / "checkpoints" / str(step) / "record" / "metadata").write_text("{")


def test_the_best_is_a_step_whose_checkpoint_is_there(workdir, tmp_path):
    copy = copied(workdir, tmp_path)
    with pytest.raises(InputError, match=r"^no checkpoint of .* was evaluated while training, .*; there are 5, 10\.$"):
        ddpm.load(copy, "best")
    for step, fd in ((3, 0.1), (5, 1.0), (10, 2.0)):  # of step 3 no checkpoint was kept
        generated = {"kind": "run", "step": step, "when": "training"}
        records.store(copy, {"figures": {"fd": fd}, "provenance": {"generated": generated}})
    assert ddpm.load(copy, "best").step == 5
    break_checkpoint(copy, 10)
    assert ddpm.load(copy, "best").step == 5
    (copy / "checkpoints" / "5" / "record" / "metadata").rename(copy / "kept")
    with pytest.raises(InputError, match=r"^no checkpoint in .* of step 5, 10 is intact: give another step\.$"):
        ddpm.load(copy, "best")
    shutil.rmtree(copy / "checkpoints" / "10")
    shutil.copytree(workdir / "checkpoints" / "10", copy / "checkpoints" / "10")
    with pytest.raises(InputError, match=r"^no checkpoint in .* of step 5 is intact: give another step\.$"):
        ddpm.load(copy, "best")


def test_what_is_not_there_is_named(workdir, tmp_path):
    with pytest.raises(InputError, match=r"^no checkpoint in .*: train a run with --workdir .* first.$"):
        ddpm.load(tmp_path)
    with pytest.raises(InputError, match=r"^no checkpoint of step 7 in .*; there are 5, 10.$"):
        ddpm.load(workdir, step=7)
    with pytest.raises(InputError, match=r"^step = '10' is neither a whole number nor 'best'.$"):
        ddpm.load(workdir, step="10")


def test_a_run_evaluates_itself_and_draws_no_sample_twice(workdir, monkeypatch):
    opened = ddpm.load(workdir)
    assert opened.config.evaluation.num == 40
    record = opened.evaluate(seed=3, sampler="ddim", num_steps=4)
    assert set(record["figures"]) == {"fd", "precision", "recall"}
    assert record["provenance"]["generated"]["nfe"] == 4 and records.read(workdir)[-1] == record
    monkeypatch.setattr(BatchedSampler, "batches", lambda *args, **options: iter(()))
    monkeypatch.chdir(workdir.parent)
    again = ddpm.load(workdir.name).evaluate(seed=3, sampler="ddim", num_steps=4)  # spelt otherwise
    assert again["figures"] == record["figures"]
    assert len(records.read(workdir)) == 1


def test_a_run_tells_what_it_cannot_evaluate_before_it_draws(workdir, monkeypatch):
    opened = ddpm.load(workdir)
    monkeypatch.setattr(BatchedSampler, "batches", None)
    opened.config.evaluation.metrics = ("fid", "fid_infinity")
    with pytest.raises(InputError, match="^fid_infinity needs 130 images or more, and there are 40 of "):
        opened.evaluate()
    opened.config.evaluation.reference = "nosuch.npz"
    with pytest.raises(InputError, match="^no statistics file 'nosuch.npz'"):
        opened.evaluate()
