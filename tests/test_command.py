"""The command as a user types it: what it makes, and what it says of mistakes."""

import json
import re

import numpy as np
import pytest
from conftest import TINY, run
from PIL import Image


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run of ten steps, with pictures."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    code, out, err = run(
        *TINY,
        f"--workdir={path}",
        *[f"--config.training.{every}" for every in ("num_steps=10", "sample_every=5", "evaluate_every=5")],
    )
    assert code == 0, err
    assert "model  unet: " in out and "data   digits: 1500 images of 8 x 8 x 1" in out
    assert f"{path}/samples/00000010.png" in out and f"{path}/loss.png" in out
    return path


def test_training_leaves_pictures_figures_and_checkpoints(workdir):
    for name in ("loss.png", "samples/00000005.png", "samples/00000010.png", "samples/path.png"):
        with Image.open(workdir / name) as picture:
            assert np.asarray(picture).std() > 0, name
    with Image.open(workdir / "samples" / "path.gif") as animation:
        assert animation.n_frames == 6
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10]
    assert {"loss", "grad_norm", "images_per_second", "skipped", "loss_t_quarter_1", "loss_t_quarter_4"} <= rows[
        0
    ].keys()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "5"]
    assert list((workdir / "tensorboard").iterdir())


def test_a_finished_run_started_again_has_nothing_to_do(workdir):
    before = (workdir / "metrics.jsonl").read_text()
    code, out, _ = run(*TINY, f"--workdir={workdir}", "--config.training.num_steps=10")
    assert code == 0 and "resumed at step 10 of 10" in out
    assert (workdir / "metrics.jsonl").read_text() == before


def test_sampling_writes_a_grid_and_the_images(workdir):
    arguments = ("--mode=sample", "--config.sampler.name=ddim", "--config.sampler.num_steps=4", "--num=11", "--seed=7")
    code, out, err = run(*TINY, f"--workdir={workdir}", *arguments)
    assert code == 0, err
    assert "11/11 images" in out and "4 network evaluations an image" in out
    name = workdir / "samples" / "step10_ddim4_seed7"
    images = np.load(name.with_suffix(".npz"))["arr_0"]
    assert images.shape == (11, 8, 8, 1) and images.dtype == np.uint8
    assert name.with_suffix(".png").exists()


def test_samples_by_other_options_have_other_names(workdir):
    arguments = (f"--workdir={workdir}", "--mode=sample", "--num=2", "--sampler=ddim", "--num_steps=3")
    assert run(*arguments)[0] == 0
    assert run(*TINY, *arguments, "--config.sampler.ddim.eta=0.5", "--config.sampler.batch_size=4")[0] == 0
    plain = workdir / "samples" / "step10_ddim3_seed0.npz"
    (other,) = set(plain.parent.glob("step10_ddim3_seed0*.npz")) - {plain}
    assert re.fullmatch("step10_ddim3_seed0_[0-9a-f]{6}", other.stem)
    assert (np.load(plain)["arr_0"] != np.load(other)["arr_0"]).any()


def test_samples_go_where_they_are_asked_to(workdir, tmp_path):
    out = tmp_path / "folder" / "x.npz"
    code, said, err = run(f"--workdir={workdir}", "--mode=sample", "--num=5", f"--out={out}", "--num_steps=3")
    assert code == 0, err
    assert f"{out} (step 10, EMA, 3 network evaluations an image)" in said
    assert np.load(out)["arr_0"].shape == (5, 8, 8, 1) and out.with_suffix(".png").exists()


def test_sampling_without_an_experiment_uses_the_runs_own(workdir):
    code, out, _ = run(f"--workdir={workdir}", "--mode=sample", "--num=2")
    assert code == 0 and "step10_ancestral5_seed0.npz" in out


def records(workdir):
    return [json.loads(line) for line in (workdir / "evaluation.jsonl").read_text().splitlines()]


def test_training_evaluates_and_keeps_the_best(workdir):
    made = [row["provenance"]["generated"] for row in records(workdir)]
    assert [(row["step"], row["num"], row["nfe"], row["when"]) for row in made[:2]] == [
        (5, 40, 3, "training"),
        (10, 40, 3, "training"),
    ]


def test_evaluation_prints_and_writes_its_figures(workdir):
    flags = (
        "--mode=eval",
        "--num=80",
        "--metrics=fid,pr,drift,memorisation",
        "--sampler=ddim,ancestral",
        "--num_steps=2,4",
    )
    code, out, err = run(*TINY, f"--workdir={workdir}", *flags)
    assert code == 0, err
    rows = [row for row in records(workdir) if row["provenance"]["generated"]["when"] == "afterwards"]
    made = [row["provenance"]["generated"] for row in rows]
    assert [(row["sampler"], row["nfe"]) for row in made] == [
        ("ddim", 2), ("ddim", 4), ("ancestral", 2), ("ancestral", 4)
    ]  # fmt: skip
    assert {row["num"] for row in made} == {80}
    assert {row["provenance"]["reference"]["num"] for row in rows} == {100}
    for row in rows:
        for name in ("fd", "precision", "recall", "mean_drift_grey"):
            assert f"{name:20s} {row['figures'][name]:.4g}" in out
    with Image.open(workdir / "evaluation" / "neighbours.png") as picture:
        assert np.asarray(picture).std() > 0
    again, told, _ = run(*TINY, f"--workdir={workdir}", *flags)
    assert again == 0 and told.splitlines()[-1] == out.splitlines()[-1] and len(records(workdir)) == 2 + len(rows)


def test_images_are_evaluated_without_a_run(tmp_path):
    flags = ("--mode=eval", "--images=digits:test")
    code, out, err = run(*TINY, *flags, f"--out={tmp_path}/digits.npz")
    assert code == 0 and f"--reference {tmp_path}/digits.npz" in out, err
    code, out, err = run(*TINY, *flags, "--metrics=fid", f"--reference={tmp_path}/digits.npz")
    assert code == 0 and "fd " in out, err
    assert abs(float(out.splitlines()[-1].split()[1])) < 1e-9


def test_images_evaluated_beside_a_run_are_in_its_report(workdir):
    before = len(records(workdir))
    code, out, err = run(
        *TINY, f"--workdir={workdir}", "--mode=eval", "--images=digits:test", "--num=90", "--metrics=pr"
    )
    assert code == 0 and "90 images of digits:test" in out, err
    assert records(workdir)[-1]["provenance"]["generated"]["num"] == 90 and len(records(workdir)) == before + 1


def test_the_report_of_a_run_is_one_page(workdir):
    code, out, err = run(f"--workdir={workdir}", "--mode=report")
    assert code == 0 and f"report    {workdir}/report.html" in out, err
    assert (workdir / "report.html").read_text().startswith("<!doctype html>")


MISTAKES = {
    "an unknown key": (
        [*TINY, "--config.training.num_step=3", "--workdir=W"],
        "unknown configuration key 'training.num_step'. Did you mean 'training.num_steps'? Near to it: training.num_steps",
    ),
    "a value of another type": (
        [*TINY, "--config.training.num_steps=1e3", "--workdir=W"],
        "flag --config.training.num_steps=1e3: invalid literal for int() with base 10: '1e3'",
    ),
    "steps": ([*TINY, "--config.training.steps_per_dispatch=-1", "--workdir=W"], "training.steps_per_dispatch = -1"),
    "an unknown flag": ([*TINY, "--workdirr=W"], "Unknown command line flag 'workdirr'. Did you mean: workdir ?"),
    "no experiment": (["--workdir=W"], "--mode train needs --config, such as --config experiments/digits.py."),
    "a key of no experiment": (
        ["--mode=sample", "--workdir=RUN", "--config.sampler.name=ddim"],
        "--config.sampler.name changes an experiment: name it by --config FILE.",
    ),
    "no such experiment": (
        ["--config=experiments/digts.py", "--workdir=W"],
        "unknown experiment 'experiments/digts.py'. Did you mean 'experiments/digits.py'? ",
    ),
    "a misspelt key in an experiment": (
        ["--config=X/misspelt.py", "--workdir=W"],
        "X/misspelt.py, line 3: AttributeError: ",
    ),
    "an experiment that is no Python": (
        ["--config", "X/no python.py", "--workdir=W"],
        "X/no python.py, line 1: SyntaxError: ",
    ),
    "a workdir that is a file": ([*TINY, "--workdir=X/misspelt.py"], "X/misspelt.py"),
    "a workdir in an unknown store": (
        [*TINY, "--workdir=s3://bucket/run"],
        "s3://bucket/run is no address of a run, such as gs://bucket/run; of other stores give a directory where it is mounted.",
    ),
    "no steps": ([*TINY, "--workdir=W", "--config.training.num_steps=0"], "training.num_steps = 0 must be at least 1."),
    "no batch": (
        [*TINY, "--workdir=W", "--config.training.batch_size=0"],
        "training.batch_size = 0 must be at least 1.",
    ),
    "a negative interval": (
        [*TINY, "--workdir=W", "--config.training.log_every=-5"],
        "training.log_every = -5 must be at least 0.",
    ),
    "an EMA that forgets backwards": (
        [*TINY, "--workdir=W", "--config.ema.decay=1.5"],
        "ema.decay = 1.5 is not in [0, 1); DDPM uses 0.9999.",
    ),
    "a folder that is not given": (
        [*TINY, "--workdir=W", "--config.data.name=folder"],
        "no folder '': give the folder of images with --config.data.folder.path=FOLDER.",
    ),
    "no workdir": (TINY, "--mode train needs --workdir, such as --workdir runs/digits."),
    "an unknown sampler": (
        [*TINY, "--workdir=W", "--config.sampler.name=ddmi"],
        "unknown sampler 'ddmi'. Did you mean 'ddim'? Known: ancestral, ddim, deis, ",
    ),
    "an unknown data set": (
        [*TINY, "--workdir=W", "--config.data.name=digist"],
        "unknown data set 'digist'. Did you mean 'digits'? Known: digits, folder, npz, tfds.",
    ),
    "an unknown schedule": (
        [*TINY, "--workdir=W", "--config.schedule.name=cosin"],
        "unknown schedule 'cosin'. Did you mean 'cosine'? Known: cosine, linear, quadratic, sigmoid, sqrt.",
    ),
    "a size that does not divide": (
        ["--config=experiments/digits.py", "--workdir=W", "--config.model.unet.channel_mult=(1,1,1,1,1)"],
        "image height 8 is not divisible by 16 = 2^4, as the 5 levels of channel_mult = (1, 1, 1, 1, 1) need. "
        "Resize the images or use fewer levels.",
    ),
    "an empty folder": (
        [*TINY, "--workdir=W", "--config.data.name=folder", "--config.data.folder.path=E"],
        "no image below 'E'",
    ),
    "an unreadable image": (
        [*TINY, "--workdir=W", "--config.data.name=folder", "--config.data.folder.path=B"],
        "B/broken.png cannot be read as an image",
    ),
    "a set that is not prepared": (
        ["--config=experiments/cosine_cifar.py", "--workdir=W", "--config.data.tfds.data_dir=E"],
        "data set 'cifar10' is not prepared in",
    ),
    "nothing to prepare": ([*TINY, "--mode=prepare"], "--mode prepare is for data.name = 'tfds'; 'digits' needs none."),
    "a workdir of another experiment": (
        [*TINY, "--workdir=RUN", "--config.model.unet.channels=16"],
        "RUN holds another experiment: model.unet.channels: 8 -> 16. Give its own configuration, another --workdir, "
        "or --accept_changes to go on with its parameters all the same, if they fit.",
    ),
    "samples of no run": (["--workdir=E", "--mode=sample"], "no checkpoint in"),
    "too many steps": (
        [*TINY, "--workdir=RUN", "--mode=sample", "--config.sampler.num_steps=1001"],
        "num_steps = 1001 is not in 1..1000: a process of T = 1000 levels has no more steps.",
    ),
    "no images": (["--workdir=RUN", "--mode=sample", "--num=0"], "flag --num=0: "),
    "an unknown metric": (
        ["--workdir=RUN", "--mode=eval", "--metrics=fdi"],
        "unknown metric 'fdi'. Did you mean 'fid'? Known: dc, drift, fid, ",
    ),
    "a tap that pixels have not": (
        ["--workdir=RUN", "--mode=eval", "--metrics=inception_score"],
        "feature network pixels has no 'logits', only pool.",
    ),
    "a reference of another size": (
        ["--workdir=RUN", "--mode=eval", "--metrics=fid", "--reference=X/large.npz"],
        "RUN holds images of (8, 8, 1), X/large.npz of (9, 9, 1) (height, width, channels): no figure compares them.",
    ),
    "a likelihood of another size": (
        ["--workdir=RUN", "--mode=eval", "--metrics=vlb_bpd", "--reference=X/large.npz"],
        "X/large.npz holds images of (9, 9, 1), the run is of (8, 8, 1) (height, width, channels): its model says nothing",
    ),
    "a sampler of likelihoods": (
        ["--workdir=RUN", "--mode=eval", "--metrics=vlb_bpd", "--num_steps=5"],
        "vlb_bpd draw no samples: --sampler and --num_steps do nothing here.",
    ),
    "a likelihood that is none": (
        ["--workdir=RUN", "--mode=eval", "--metrics=ode_bpdd,fid"],
        "unknown metric 'ode_bpdd'. Did you mean 'ode_bpd'? Known: dc, drift, fid, ",
    ),
    "eps without signal": (
        [*TINY, "--workdir=W", "--config.schedule.zero_terminal_snr=True"],
        "prediction 'eps' is impossible where alpha_T = 0: it leaves x_0 undetermined there. Use v or x0 ",
    ),
    "a learned variance of one head": (
        [*TINY, "--workdir=W", "--config.sampler.ancestral.variance=learned"],
        "variance 'learned' needs a network that says one: take 'beta' or 'posterior', or train with the loss",
    ),
    "one noise level": ([*TINY, "--workdir=W", "--config.schedule.T=1"], "T = 1 noise levels are too few"),
    "a bound of times that are not uniform": (
        [*TINY, "--workdir=W", "--config.loss.name=vlb", "--config.timesteps.name=log_normal"],
        "loss 'vlb' is a bound only as a mean over uniform t, and timesteps 'log_normal' are not uniform: use uniform, or",
    ),
    "a process that runs away": (
        [*TINY, "--workdir=W", "--config.process.name=LearnedVP"],
        "process 'LearnedVP' is learned, and loss 'weighted' would be made less by moving the noise: train it with loss",
    ),
    "a bound of levels in continuous time": (
        [*TINY, "--workdir=W", "--config.process.name=SubVP", "--config.loss.name=hybrid"],
        "loss 'hybrid' is a sum over noise levels, of which SubVP has none: use the loss weighted, or a process with a",
    ),
    "a step that is not there": (["--workdir=RUN", "--mode=eval", "--step=7"], "no checkpoint of step 7 in "),
    "several samplers for one picture": (
        ["--workdir=RUN", "--mode=sample", "--sampler=ddim,ancestral"],
        "--mode sample takes one --sampler and one --num_steps; --mode eval compares several.",
    ),
    "a flag of another mode": (
        ["--workdir=RUN", "--mode=eval", "--out=x.npz"],
        "--out does nothing in --mode eval, only in --mode sample or --mode eval --images or --mode report or --mode export.",
    ),
    "a sweep over nothing": (
        [*TINY, "--workdir=W", "--sweep=sed=1"],
        "unknown configuration key 'sed'. Did you mean 'seed'?",
    ),
    "a sweep of samples": (
        ["--workdir=RUN", "--mode=sample", "--sweep=seed=1"],
        "--sweep does nothing in --mode sample, only in --mode train.",
    ),
    "a run of a sweep that is none": (
        [*TINY, "--workdir=W", "--index=0"],
        "--index needs --sweep, or a function sweep(add) in experiments/digits.py.",
    ),
    "images against nothing": (
        ["--mode=eval", "--images=E"],
        "--images needs --config, whose data are the real images",
    ),
    "a report of nothing": (["--mode=report", "--workdir=E"], "nothing to show in "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, workdir, tmp_path):
    arguments, message = MISTAKES[mistake]
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "broken.png").write_text("no image")
    (broken / "misspelt.py").write_text(
        "from experiments import base\ndef get_config():\n    base.get_config().training.batch_siz = 3\n"
    )
    (broken / "no python.py").write_text("def def")
    np.savez(broken / "large.npz", arr_0=np.zeros((101, 9, 9, 1), np.uint8))
    names = {"W": tmp_path / "new", "E": empty, "B": broken, "RUN": workdir}

    def placed(text):
        text = text.replace("X/", f"{broken}/")
        for name, path in names.items():
            text = text.replace(f"={name}", f"={path}").replace(f"'{name}'", f"'{path}'")
            text = text.replace(f"{name}/b", f"{path}/b").replace(f"{name} holds", f"{path} holds")
        return text

    code, out, err = run(*map(placed, arguments))
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith(f"error: {placed(message)}"), err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()  # nothing is made before the mistake is found


def test_batch_size_and_devices_that_do_not_fit(tmp_path):
    code, _, err = run(*TINY, f"--workdir={tmp_path}", devices=3)
    assert code == 2
    assert "error: training.batch_size = 16 does not split evenly over 3 devices: use a multiple of 3." in err


def test_a_file_of_flags_that_cannot_be_read_is_one_line_and_exit_code_2(tmp_path):
    code, _, err = run(*TINY, f"--flagfile={tmp_path}/none", environment={})  # a process that imports the command
    assert code == 2 and err.count("error: ") == 1 and f"'{tmp_path}/none'" in err and "Traceback" not in err
