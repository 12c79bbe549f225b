"""Other people's weights as runs, and runs as folders of diffusers: what is made, and what is refused in one line."""

import json

import numpy as np
import pytest
import torch_files
from conftest import run as command
from runs_of_others import mistake, native

from ddpm import trained
from ddpm.exports import export_run
from ddpm.imports import import_run
from ddpm.training.checkpoint import checksums
from experiments import base, digits

NOISE = "--noise_schedule linear --diffusion_steps 1000"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A folder of diffusers."""
    folder = tmp_path_factory.mktemp("made")
    native(folder / "run")
    export_run(folder / "run", None, folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture
def copy(pipeline, tmp_path):
    """The same, to spoil; `config` changes the keys of its network's config.json."""

    def of(config=None, scheduler=None, arrays=lambda arrays: arrays):
        from safetensors.numpy import load_file, save_file

        target = tmp_path / "pipeline"
        for part in ("unet", "scheduler"):
            (target / part).mkdir(parents=True)
        for file, more in (("unet/config.json", config), ("scheduler/scheduler_config.json", scheduler)):
            (target / file).write_text(json.dumps(json.loads((pipeline / file).read_text()) | (more or {})))
        weights = "unet/diffusion_pytorch_model.safetensors"
        save_file(arrays(load_file(pipeline / weights)), target / weights)
        return target

    return of


@pytest.mark.slow
def test_an_imported_run_is_sampled_trained_on_and_exported_as_it_came(pipeline, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    code, said, error = command(
        "--mode=import", f"--from={pipeline}", f"--workdir={run}", "--config=experiments/digits.py"
    )
    assert code == 0, error
    assert f"train     --config {run}/experiment.py --workdir {run}" in said
    code, _, error = command("--mode=sample", f"--workdir={run}", "--num=3", "--sampler=ddim", "--num_steps=2")
    assert code == 0, error
    code, _, error = command("--mode=export", f"--workdir={run}", f"--out={out}")
    assert code == 0, error
    for file in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        assert (out / file).read_bytes() == (pipeline / file).read_bytes(), file
    few = ["num_steps=1", "batch_size=8", "sample_every=0", "evaluate_every=0"]
    flags = [f"--config.training.{change}" for change in few]
    code, _, error = command(f"--config={run}/experiment.py", f"--workdir={run}", *flags)
    assert code == 0, error
    before, after = (trained.read(run, step) for step in (0, 1))
    assert after.config.model == before.config.model and checksums(after.params) != checksums(before.params)


def test_a_scheduler_is_found_where_folders_have_it(copy, tmp_path):
    folder = copy()
    import_run(str(folder / "unet"), tmp_path / "of_unet", None, "")
    flat = tmp_path / "flat"  # as google/ddpm-cifar10-32
    (folder / "unet").rename(flat)
    (folder / "scheduler" / "scheduler_config.json").rename(flat / "scheduler_config.json")
    import_run(str(flat), tmp_path / "of_flat", None, "")
    one, other = (trained.read(tmp_path / run) for run in ("of_unet", "of_flat"))
    assert one.config == other.config and checksums(one.params) == checksums(other.params)
    assert one.config.schedule.name == "cosine"


def test_a_model_card_says_what_a_run_is(tmp_path):
    native(tmp_path / "run")
    record = {
        "figures": {"fd": 0.25},
        "provenance": {
            "generated": {"name": "x", "num": 40, "step": 0, "sampler": "ddim", "nfe": 3},
            "reference": {"name": "digits:train", "num": 100},
            "features": {"name": "classifier"},
        },
    }
    (tmp_path / "run" / "evaluation.jsonl").write_text(json.dumps(record) + "\n")
    export_run(tmp_path / "run", None, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        "| data | digits:train: 1500 images, 8 x 8 x 1 |",
        "| steps | 0 of ",
        "| licence | ",
        "| fd | 0.25 | 40 ddim, 3 evaluations an image, step 0 | 100 digits:train | classifier |",
        '"data.name": "digits"',
    ):
        assert words in card


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_broken_configuration_is_refused(copy, tmp_path, file):
    folder = copy()
    (folder / file).write_text('{"_class')
    told = mistake(import_run, str(folder), tmp_path / "run", None, "")
    assert told.startswith(f"{folder / file} cannot be read (") and told.endswith("Copy it again.")


CONFIGS = {
    "class": ({"_class_name": "UNet1DModel"}, "unknown network 'UNet1DModel'. Did you mean 'UNet2DModel'?"),
    "no_class": ({"_class_name": None}, "unknown network 'None'."),
    "blocks": ({"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "at the same levels."),
    "fourier": (
        {"time_embedding_type": "fourier"},
        "time_embedding_type = 'fourier' is no network that our U-Net can be: ",
    ),
    "size": ({"sample_size": None}, "says no sample_size: add the height of the images it was trained with."),
    "widths": ({"block_out_channels": [8, 12]}, "multiples of the first one's features."),
    "layers": ({"layers_per_block": [1, 2]}, "it has one number for all levels."),
    "norm": ({"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": None}, "give attn_norm_num_groups."),
}


@pytest.mark.parametrize(("change", "wrong"), CONFIGS.values(), ids=CONFIGS)
def test_a_network_that_is_none_of_ours_is_refused_by_name(copy, tmp_path, change, wrong):
    folder = copy(change)
    told = mistake(import_run, str(folder), tmp_path / "run", None, "")
    assert told.startswith(f"{folder}/unet/config.json") and wrong in told


SCHEDULERS = {
    "class": ({"_class_name": "ScoreSdeVeScheduler"}, "unknown scheduler 'ScoreSdeVeScheduler'."),
    "schedule": ({"beta_schedule": "sigmoid"}, "beta_schedule = 'sigmoid' has no counterpart here."),
    "prediction": ({"prediction_type": "flow"}, "prediction_type = 'flow' has no counterpart here."),
    "betas": ({"trained_betas": [0.1, 0.2]}, "trained_betas = [0.1, 0.2] has no counterpart here."),
}


@pytest.mark.parametrize(("change", "wrong"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_that_is_none_of_ours_is_refused_by_name(copy, tmp_path, change, wrong):
    folder = copy(scheduler=change)
    told = mistake(import_run, str(folder), tmp_path / "run", None, "")
    assert told.startswith(f"{folder}/scheduler/scheduler_config.json: ") and wrong in told
    assert told.endswith("give --config, which says the process, schedule and prediction.")


NAME = "mid_block.resnets.1.conv2.weight"
ARRAYS = {
    "missing": (lambda arrays: {name: arrays[name] for name in arrays if name != NAME}, f"holds no '{NAME}', which this"),
    "shape": (lambda arrays: arrays | {NAME: arrays[NAME][:8]}, f"'{NAME}' is of shape (8, 16, 3, 3), which makes mid_1/"),
    "unused": (lambda arrays: arrays | {"more": arrays[NAME]}, "holds 1 array(s) that the network has no use for, such as 'more'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "wrong"), ARRAYS.values(), ids=ARRAYS)
def test_weights_that_do_not_fit_are_refused(copy, tmp_path, change, wrong):
    folder = copy(arrays=change)
    told = mistake(import_run, str(folder), tmp_path / "run", None, "")
    assert told.startswith(f"{folder}/unet/diffusion_pytorch_model.safetensors") and wrong in told
    assert told.endswith("configuration is of another network.") and not (tmp_path / "run").exists()


def test_truncated_weights_and_no_weights_are_refused(copy, tmp_path):
    folder = copy()
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    code, out, error = command("--mode=import", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert code == 2 and out == "" and error.startswith(f"error: {weights} cannot be read (") and error.count("\n") == 1
    weights.unlink()
    assert "holds no diffusion_pytorch_model.safetensors" in mistake(
        import_run, str(folder), tmp_path / "run", None, ""
    )


def test_what_nobody_says_is_asked_for(copy, tmp_path):
    folder, run = copy(), tmp_path / "run"
    told = mistake(import_run, str(folder / "unet"), run, None, "--num_heads 4")
    assert told == f"--trained_with says what a .pt does not; {folder / 'unet'} has a config.json that does."
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert "give --config, whose process, schedule and" in mistake(import_run, str(folder), run, None, "")
    config = base.get_config()
    config.process.name = "VE"
    assert "whose times are integers from 0: use process VP." in mistake(import_run, str(folder), run, config, "")
    config = base.get_config()
    config.schedule.T = 4000
    assert "schedule.T is 4000: set it to 'index', or to 'sc" in mistake(import_run, str(folder), run, config, "")
    assert import_run(str(folder), run, digits.get_config(), "") == 0
    assert mistake(import_run, str(folder), run, None, "") == f"{run} holds a run: give another --workdir."
    for source in ("none", str(tmp_path)):
        assert "give a folder" in mistake(import_run, source, tmp_path / "another", None, "")


STATE = {
    "time_embed.0.weight": (8, 8),
    "input_blocks.0.0.weight": (8, 3, 3, 3),
    "output_blocks.0.0.qkv.weight": (24, 8, 1),
}
FLAGS = {
    "nothing": ("", ["--image_size", "--num_heads or", "--use_new_attention_order (F", "--noise_schedule", "--diffusion_steps"]),
    "heads": (f"--image_size 8 --use_new_attention_order False {NOISE}", ["--num_heads or --num_head_channels (improved"]),
    "order": (f"--image_size 8 --num_heads 4 {NOISE}", ["--use_new_attention_order (False where"]),
    "scaled": ("--image_size 8 --num_heads 1 --noise_schedule cosine --diffusion_steps 4000", ["--rescale_timesteps (improved"]),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "missing"), FLAGS.values(), ids=FLAGS)
def test_a_file_of_openais_asks_for_what_no_shape_says(tmp_path, flags, missing):
    file = torch_files.save(tmp_path / "model.pt", {name: np.ones(shape, np.float32) for name, shape in STATE.items()})
    told = mistake(import_run, str(file), tmp_path / "run", None, flags)
    assert told.startswith(f"{file} does not say all of its network: give --trained_with the flags it was trained with")
    assert all(name in told for name in missing) and told.count("; --") == len(missing) - 1


def test_flags_that_are_none_and_files_of_nobody_are_refused(tmp_path):
    file = torch_files.save(tmp_path / "model.pt", {name: np.ones(shape, np.float32) for name, shape in STATE.items()})
    for flags, wrong in (
        ("image_size 8", "is not of the form"),
        ("--num_heads four", "--num_heads four is no number."),
        ("--num_heads inf", "--num_heads inf is no number."),
        ("--num_heads 1.5", "--num_heads 1.5 is no whole number."),
        ("--image_size '8", "is not of the form"),
        ("--predict_xstrat True", "unknown flag in --trained_with 'predict_xstrat'. Did you mean 'predict_xstart'? "),
    ):
        assert wrong in mistake(import_run, str(file), tmp_path / "run", None, flags)
    few = "--image_size 8 --num_heads 1 --noise_schedule linear --diffusion_steps 1000 --num_channels 128"
    block = {"input_blocks.1.0.out_layers.3.weight": (8, 8, 3, 3), "input_blocks.1.0.emb_layers.1.weight": (8, 32)}
    block |= {"out.2.weight": (3, 8, 3, 3)}
    whole = torch_files.save(
        tmp_path / "whole.pt", {name: np.ones(s, np.float32) for name, s in (STATE | block).items()}
    )
    assert mistake(import_run, str(whole), tmp_path / "run", None, few) == (
        f"--trained_with: --num_channels 128, but in {whole} it is 8: these flags are of another."
    )
    file = torch_files.save(tmp_path / "other.pt", {"conv.weight": np.ones((2, 3), np.float32)})
    told = mistake(import_run, str(file), tmp_path / "run", None, "")
    assert (
        told.startswith(f"{file} holds 'conv.weight', ...: no network of improved or guided diffusion")
        and "DiT" in told
    )


class Hostile:
    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.made}",)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    file = torch_files.write(tmp_path / "model.pt", torch_files.literal({"weight": Hostile(tmp_path / "made")}), {})
    code, out, error = command("--mode=import", f"--from={file}", f"--workdir={tmp_path}/run")
    assert code == 2 and out == "" and not (tmp_path / "made").exists()
    assert error == (
        f"error: {file} names posix.system: only files of tensors are read, because others run code. "
        "Save it with torch.save(model.state_dict(), path).\n"
    )


def test_a_network_of_latents_needs_their_autoencoder(copy, tmp_path):
    folder = copy({"in_channels": 4, "out_channels": 4})
    told = mistake(import_run, str(folder), tmp_path / "run", None, "")
    assert "denoises 4 channels, which are latents: give the folder of the pipeline with its vae" in told


REFUSED = {  # keys of a run that diffusers has no counterpart of
    "process": ({"process.name": "VE"}, "no counterpart of process 'VE'"),
    "prediction": ({"prediction.name": "score"}, "diffusers' schedulers know no prediction 'score', only eps, v, x0."),
    "levels": ({"schedule.T": 500}, "1000 t / T with T = 500"),
    "patch": ({"model.unet.patch": 2, "model.unet.attention_resolutions": (2,)}, "model.unet.patch = 2"),
    "fourier": ({"model.unet.fourier": (6, 7)}, "model.unet.fourier = (6, 7)"),
    "token": ({"model.unet.time": "token"}, "model.unet.time = 'token'"),
    "groups": ({"model.unet.norm_groups": 0}, "this U-Net has [2, 4, 6, 8]: train it with model.unet.norm_groups"),
    "heads": ({"model.unet.num_heads": 2, "model.unet.attention_resolutions": (8, 4)}, "train with model.unet.head_channels."),
    "dit": ({"model.name": "dit", "model.dit.depth": 1}, "told classes with condition.labels and condition.null_rate."),
    "rotary": ({"model.name": "dit", "model.dit.depth": 1, "model.dit.positions": "rotary"}, "model.dit.positions = 'rotary'"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "wrong"), REFUSED.values(), ids=REFUSED)
def test_what_diffusers_has_no_counterpart_of_is_not_exported(tmp_path, changes, wrong):
    native(tmp_path / "run", lambda config: config.update_from_flattened_dict(changes))
    assert wrong in mistake(export_run, tmp_path / "run", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_groups_that_are_as_many_in_all_norms_by_themselves_are_exported(tmp_path):
    def change(config):  # widths of 128, 256 and 384: 32 groups each
        config.model.unet.update(norm_groups=0, channels=128, channel_mult=(1,), attention_resolutions=())
        config.process.VP.told = "index"

    native(tmp_path / "run", change)
    export_run(tmp_path / "run", None, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "unet" / "config.json").read_text())["norm_num_groups"] == 32
    import_run(str(tmp_path / "out"), tmp_path / "again", None, "")
    one, other = (trained.read(tmp_path / run) for run in ("run", "again"))
    assert checksums(one.params) == checksums(other.params) and other.config.model.unet.norm_groups == 32


def test_a_folder_that_is_there_is_not_written_over(pipeline, tmp_path):
    native(tmp_path / "run")
    assert (
        mistake(export_run, tmp_path / "run", None, pipeline)
        == f"--out {pipeline} is there already: give a new folder."
    )
    assert "no checkpoint in" in mistake(export_run, tmp_path / "none", None, tmp_path / "out")


def test_flags_that_are_missing_are_told(tmp_path):
    for flags, wrong in (
        (["--mode=import"], "--mode import needs --from, a folder of diffusers or a .pt file."),
        (["--mode=export"], "--mode export needs --out, the folder to write."),
        (["--mode=sample", "--from=x"], "--from does nothing in --mode sample, only in --mode import."),
    ):
        code, _, error = command(*flags, f"--workdir={tmp_path}/run")
        assert code == 2 and error == f"error: {wrong}\n"
