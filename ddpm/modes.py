"""What the command does but for training: sample, evaluate, report, prepare."""

import functools
import itertools
import logging
import os
import pathlib
import sys
import webbrowser
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from ddpm import autoencoders, datasets, names, pictures, remote, sharding
from ddpm.config import check_same_run, to_json
from ddpm.data import latents, tfds
from ddpm.data.images import Scale
from ddpm.draw import draw_to
from ddpm.errors import InputError, unknown_name
from ddpm.evaluate import Evaluator, provenance
from ddpm.evaluate_autoencoder import evaluate_run
from ddpm.evaluation import likelihoods, metrics, records, sources
from ddpm.evaluation.bits_per_dim import is_likelihood
from ddpm.evaluation.extract import Extracted
from ddpm.evaluation.memorisation import memorisation as copies
from ddpm.evaluation.neighbours import nearest
from ddpm.latent_space import LatentSpace
from ddpm.report import collect, page
from ddpm.run import Run, best, load
from ddpm.trained_autoencoder import is_autoencoder

TAKEN = (
    "sampler",
    "latents",
    "guidance",
    "known",
    "grid",
    "evaluation",
    "data",
)  # sections of a configuration that a trained run takes anew


def sample(
    config: ConfigDict | None, workdir: pathlib.Path, *, num: int, seed: int, out: pathlib.Path | None, **opening
) -> int:
    """Draws images of a run by `config.sampler`; writes them as .npz and the first of them as a grid."""
    run, own = _open(config, workdir, **opening)
    choice = run.config.sampler
    name = f"step{run.step}_{names.own_name(choice)}{choice.num_steps}_seed{seed}"
    name += f"_w{run.config.guidance.scale:g}" if run.config.guidance.scale != 1 else ""
    told = functools.partial(
        provenance, params=run.params, name=str(workdir), step=run.step, seed=seed, when="afterwards"
    )
    own.sampler.name, own.sampler.num_steps = choice.name, choice.num_steps
    own.guidance.scale = run.config.guidance.scale
    about = told(run.config)
    if about != told(own):  # in more than the name says
        name += f"_{sources.digest(about)[:6]}"
    out = out or workdir / "samples" / f"{name}.npz"
    progress = functools.partial(print, flush=True)
    draw = lambda first, last: run.sampler().batches(run.params, last, seed=seed, first=first)  # noqa: E731
    drawn = draw_to(out, draw, num, about=about, progress=progress)
    if drawn is None:
        return 0
    head, nfe = drawn
    sheet = out.with_suffix(".png")
    pictures.save_png(sheet, pictures.grid(head))
    print(f"samples   {sheet}, {out} (step {run.step}, EMA, {nfe:g} network evaluations an image)")
    return 0


def evaluate(
    config: ConfigDict | None,
    workdir: pathlib.Path,
    *,
    samplers: Sequence[str | None],
    num_steps: Sequence[int | None],
    seed: int,
    **opening,
) -> int:
    """Figures of a run's samples, for each sampler and number of steps, and likelihoods; adds them to workdir/evaluation.jsonl."""
    if is_autoencoder(workdir):
        if samplers != [None] or num_steps != [None]:
            raise InputError(f"{workdir} is the run of an autoencoder: --sampler and --num_steps do nothing here.")
        if opening["step"] == "best":
            opening["step"] = best(workdir)
        if not sharding.is_first():
            return 0
        _print_record(evaluate_run(config, workdir, **opening))
        print(f"written to {workdir}/evaluation.jsonl")
        return 0
    run, _ = _open(config, workdir, **opening)
    known = names.public(metrics) | names.public(likelihoods)
    for metric in run.config.evaluation.metrics:
        if metric not in known:
            raise unknown_name("metric", metric, known)
    of_images = [metric for metric in run.config.evaluation.metrics if is_likelihood(metric)]
    of_samples = tuple(metric for metric in run.config.evaluation.metrics if metric not in of_images)
    if not of_samples and (samplers != [None] or num_steps != [None]):
        raise InputError(f"{', '.join(of_images)} draw no samples: --sampler and --num_steps do nothing here.")
    for metric in of_images if sharding.is_first() else ():
        record, arrays = run.likelihood(metric, seed=seed)
        _print_record(record)
        if "terms" in arrays:
            pictures.save_terms(workdir / "evaluation" / f"{metric}_terms.png", arrays["times"], arrays["terms"])
    run.config.evaluation.metrics = of_samples
    for name, steps in itertools.product(samplers, num_steps) if of_samples else ():
        choice = dict(seed=seed, sampler=name, num_steps=steps)
        if remote.seen_by_all(workdir):
            run.draw_together(**choice)
        if not sharding.is_first():
            continue
        _print_record(run.evaluate(**choice))
        if "memorisation" in run.config.evaluation.metrics:  # all training images have been seen by the network then
            picture = _neighbours(run.extracted(**choice), run.evaluator().training)
            pictures.save_png(workdir / "evaluation" / "neighbours.png", picture)
    print(f"written to {workdir}/evaluation.jsonl")
    return 0


def evaluate_images(
    config: ConfigDict, name: str, *, num: int | None, workdir: pathlib.Path | None, out: pathlib.Path | None
) -> int:
    """Figures of a folder, a .npz file or a data set against the data of an experiment; with `out`, its statistics only.

    Args:
      num: of the images; None for all.
      workdir: of a run whose report shows the figures beside its own.
    """
    if workdir is not None and not workdir.is_dir():
        raise InputError(f"{workdir} is no run: --workdir beside --images is a run whose report shows the figures too.")
    evaluator = Evaluator(config, datasets.dataset(config), functools.partial(print, flush=True))
    images = evaluator.images(name, num)
    if out is not None:
        evaluator.write_statistics(out, images)
        print(f"statistics of {images.about['num']} images of {name} written to {out}: --reference {out}")
        return 0
    record = evaluator(images)
    _print_record(record)
    if workdir is not None:
        records.store(workdir, record)
        print(f"written to {workdir}/evaluation.jsonl")
    return 0


def report(workdirs: list[pathlib.Path], out: pathlib.Path | None) -> int:
    """Writes one page of runs that opens anywhere, without a network; shows it where there is someone to look."""
    runs = collect.collect(workdirs)
    title, place = collect.common(workdirs)
    out = out or place / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page.page(runs, title), encoding="utf-8")
    print(f"report    {out}", flush=True)
    display = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.stdout.isatty() and display:
        webbrowser.open(out.absolute().as_uri())
    return 0


def encode(config: ConfigDict) -> int:
    """Writes the latents of an experiment's data, which it is trained on from then on."""
    section, folder = config.latents, datasets.latents_folder(config)
    images, autoencoder = datasets.dataset(config), autoencoders.read(section.autoencoder)
    unscaled = Scale((0.0,), (1.0,), autoencoder.sha256)
    space = LatentSpace(autoencoder, unscaled, section.batch_size, sharding.data_mesh())
    space.latent_shape(images.facts.shape)  # images that do not fit are told of before any is read
    about = {
        "autoencoder": {"path": section.autoencoder, "sha256": autoencoder.sha256},
        "data": datasets.described(config) | {"sha256": images.sha256},
    }
    progress = functools.partial(print, flush=True)
    scale = latents.encode_to(folder, images, space.encode, about=about, scale=autoencoder.scale, progress=progress)
    known = "as the autoencoder leaves them" if autoencoder.scale else "measured"
    print(
        f"latents   {folder}: mean {np.mean(scale.mean):.3g}, deviation {np.mean(scale.std):.3g} ({known}, of channels)"
    )
    return 0


def prepare(config: ConfigDict) -> int:
    """Downloads and prepares the TFDS set of an experiment."""
    if config.data.name != "tfds":
        raise InputError(f"--mode prepare is for data.name = 'tfds'; {config.data.name!r} needs none.")
    print(tfds.prepare(dataset=config.data.tfds.dataset, data_dir=config.data.tfds.data_dir))
    return 0


def _open(
    config: ConfigDict | None, workdir: pathlib.Path, *, step: int | str | None, changes: dict, accept_changes: bool
) -> tuple[Run, ConfigDict]:
    """A run with what is asked of it, and its own configuration."""
    run = load(workdir, step)
    own = run.config.copy_and_resolve_references()
    if config is not None:
        for line in check_same_run(to_json(run.config), to_json(config), str(workdir), accept_changes):
            if line.partition(".")[0] not in TAKEN:
                logging.warning("the run is as it was trained, so this changes nothing: %s", line)
        for section in TAKEN:
            run.config[section] = config[section]
    run.config.update_from_flattened_dict(changes)
    return run, own


def _print_record(record: dict) -> None:
    provenance = record["provenance"]
    made, real, network = (provenance[key] for key in ("generated", "reference", "features"))
    if "rule" in network:
        how = (
            f", step {made['step']}, {made['params']}, {made['sampler']}, {made['nfe']} evaluations"
            if "step" in made
            else ""
        )
        print(f"{made['num']} images of {made['name']}{how}")
        print(f"against {real['num']} of {real['name']}, seen by {network['name']} ({network['rule']})")
    else:
        print(f"{real['num']} images of {real['name']} under {made['name']}, step {made['step']}, {made['params']}")
    for name, value in record["figures"].items():
        print(f"{name:20s} {value:.4g}")


def _neighbours(generated: Extracted, real: Extracted, rows: int = 8, columns: int = 6) -> np.ndarray:
    """A row a sample, the likeliest copies first: the sample, and the real images nearest to it."""
    order = np.argsort(copies(generated.features["pool"], real.features["pool"]).ratio)[:rows]
    indices, _ = nearest(generated.features["pool"][order], real.features["pool"], columns)
    cells = np.stack(
        [
            np.concatenate([generated.source.pick([i]), real.source.pick(row)])
            for i, row in zip(order, indices, strict=True)
        ]
    )
    return pictures.grid(cells.reshape(-1, *cells.shape[2:]), columns=columns + 1)
