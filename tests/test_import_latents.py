"""Pipelines of latents: their autoencoder is found, and a run's scale comes back from where it was exported to."""

import json

import jax
import numpy as np
import pytest
from runs_of_others import autoencoder, mistake, native

from ddpm import autoencoders, trained
from ddpm.data.images import Scale
from ddpm.exports import export_run
from ddpm.imports import import_run
from experiments import digits


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run in the latents of an autoencoder, and its folder of diffusers."""
    folder = tmp_path_factory.mktemp("latents")
    autoencoder(folder / "ae", "AutoencoderKL")
    scale = Scale((0.1, -1 / 3, 2e-7), (1.7, 0.3, 1 / 0.18215), autoencoders.read(str(folder / "ae")).sha256)

    def change(config):
        config.latents.autoencoder = str(folder / "ae")
        config.process.VP.told = "index"  # as diffusers tells times: the kernel of others is turned by one step

    native(folder / "run", change, shape=(8, 8, 3), scale=scale)
    export_run(folder / "run", None, folder / "pipeline")
    return folder


@pytest.fixture
def pipeline(exported, tmp_path):
    """The same folder without its scale, which is then one of others; to put an autoencoder in."""
    for part in ("unet", "scheduler"):
        (tmp_path / "pipeline" / part).mkdir(parents=True)
        for file in (exported / "pipeline" / part).iterdir():
            (tmp_path / "pipeline" / part / file.name).write_bytes(file.read_bytes())
    return tmp_path / "pipeline"


def with_autoencoder(path):
    config = digits.get_config()
    config.latents.autoencoder = str(path)
    return config


def test_a_run_of_latents_comes_back_with_its_scale_and_its_bits(exported, tmp_path):
    import_run(str(exported / "pipeline"), tmp_path / "run", with_autoencoder(exported / "ae"), "")
    before, after = trained.read(exported / "run", None), trained.read(tmp_path / "run", None)
    assert after.facts.scale == before.facts.scale and after.config.latents.autoencoder == str(exported / "ae")
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    export_run(tmp_path / "run", None, tmp_path / "out")
    for file in ("latents.json", "unet/diffusion_pytorch_model.safetensors", "unet/config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (exported / "pipeline" / file).read_bytes()


def test_a_run_of_latents_wants_the_autoencoder_that_it_was_trained_with(exported, tmp_path):
    sha256 = autoencoders.read(str(exported / "ae")).sha256
    told = mistake(import_run, str(exported / "pipeline"), tmp_path / "run", None, "")
    assert f"denoises latents of the autoencoder {sha256}: give --config with the path of that one" in told
    autoencoder(tmp_path / "other", "VQModel")
    other = with_autoencoder(tmp_path / "other")
    told = mistake(import_run, str(exported / "pipeline"), tmp_path / "run", other, "")
    assert f"denoises latents of the autoencoder {sha256}, and the one at {tmp_path / 'other'} is " in told


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"mean": "x"}, "mean = 'x' must be a list of numbers."),
        ({"std": [1, 0, 1]}, "std = [1, 0, 1] must be a list of numbers above 0."),
        ({"std": [1, 1]}, "mean and std must have 3 numbers each, one for each channel of the latents."),
        ({"autoencoder": None}, "autoencoder = None must be a name."),
    ],
)
def test_a_scale_that_is_none_is_refused(exported, pipeline, tmp_path, change, wrong):
    said = json.loads((exported / "pipeline" / "latents.json").read_text())
    (pipeline / "latents.json").write_text(json.dumps(said | change))
    assert mistake(import_run, str(pipeline), tmp_path / "run", None, "") == f"{pipeline}/latents.json: {wrong}"


@pytest.mark.parametrize(
    ("folder", "kind", "more", "std"),
    [
        ("vae", "AutoencoderKL", {}, 1 / 0.18215),
        ("vqvae", "VQModel", {}, 1.0),  # as in CompVis/ldm-celebahq-256
        ("vqvae", "VQModel", {"scaling_factor": 0.5}, 2.0),
    ],
)
def test_a_pipeline_of_latents_with_three_channels_is_none_of_pixels(pipeline, tmp_path, folder, kind, more, std):
    autoencoder(pipeline / folder, kind, **more)
    import_run(str(pipeline), tmp_path / "run", None, "")
    run = trained.read(tmp_path / "run", None)
    assert run.config.latents.autoencoder == str(pipeline / folder)
    assert run.facts.scale.mean == (0.0,) * 3 and run.facts.scale.std == (std,) * 3


def test_an_autoencoder_that_a_pipeline_names_and_lacks_is_asked_for(pipeline, tmp_path):
    (pipeline / "model_index.json").write_text(json.dumps({"vqvae": ["diffusers", "VQModel"], "unet": ["", ""]}))
    told = mistake(import_run, str(pipeline), tmp_path / "run", None, "")
    assert told.startswith(f"no autoencoder at '{pipeline}/vqvae'")


def test_the_autoencoder_that_was_given_goes_before_that_of_the_folder(pipeline, tmp_path):
    autoencoder(pipeline / "vae", "AutoencoderKL")
    autoencoder(tmp_path / "mine", "AutoencoderKL", scaling_factor=0.25)
    import_run(str(pipeline), tmp_path / "run", with_autoencoder(tmp_path / "mine"), "")
    run = trained.read(tmp_path / "run", None)
    assert run.config.latents.autoencoder == str(tmp_path / "mine") and run.facts.scale.std == (4.0,) * 3
