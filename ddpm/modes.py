"""What the command does: train, sample, evaluate, report, prepare."""

import dataclasses
import functools
import itertools
import json
import logging
import os
import pathlib
import sys
import time
import webbrowser
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from ddpm import build, pictures
from ddpm.config import check_same_run, differences, to_json
from ddpm.data import tfds
from ddpm.errors import InputError
from ddpm.evaluate import Evaluator, best_figure, of_run
from ddpm.evaluation import records
from ddpm.evaluation.extract import Extracted
from ddpm.evaluation.memorisation import memorisation as copies
from ddpm.evaluation.neighbours import nearest
from ddpm.report import collect, page
from ddpm.run import Run, load
from ddpm.training import checkpoint, interrupt, loop, metrics, sharding
from ddpm.training.progress import ProgressBar
from ddpm.training.state import State, init_state
from ddpm.training.wandb_writer import WandbWriter

PREVIEW_IMAGES, PREVIEW_PATHS, PREVIEW_SEED = 64, 8, 0
EVALUATION_SEED = 1


def train(config: ConfigDict, workdir: pathlib.Path, *, accept_changes: bool) -> int:
    """Trains an experiment, or goes on with it from its newest intact checkpoint; returns the exit code."""
    plan, mesh = build.plan(config), sharding.data_mesh()
    replicated, split = sharding.replicated(mesh), sharding.split(mesh)
    sharding.check_divisible("training.batch_size", config.training.batch_size, mesh)
    images = build.dataset(config)
    facts = images.facts
    record = {"config": to_json(config), "facts": dataclasses.asdict(facts)}
    _check_workdir(record, workdir, accept_changes)

    net = build.network(config, facts.shape)
    tx = build.gradient_transformation(config)
    samples = build.batched_sampler(config, net, facts.shape, mesh)
    # Initialising runs once: to optimise its program takes longer than it saves.
    init = jax.jit(
        lambda key: init_state(net.init(key), tx),
        out_shardings=replicated,
        compiler_options={"xla_backend_optimization_level": 0},
    )
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
        jax.eval_shape(init, build.init_key(config)),
    )
    evaluator, best = Evaluator(config, images), best_figure(config.evaluation)
    evaluated = build.with_sampler(config, config.evaluation.sampler, config.evaluation.num_steps)
    evaluated_samples = build.batched_sampler(evaluated, net, facts.shape, mesh)
    feed = build.batches(config, images, split=split, replicated=replicated)
    steps_per_dispatch = _steps_per_dispatch(config.training.steps_per_dispatch, feed.resident)
    first_batches = steps_per_dispatch * plan.accumulate if steps_per_dispatch > 1 else 1
    steps = loop.compile_steps(build.train_step(config, net, tx), feed, config.seed, abstract, first_batches)

    with interrupt.interruptible() as interrupted:
        workdir.mkdir(parents=True, exist_ok=True)
        checkpoints = checkpoint.Checkpoints(
            workdir,
            keep=config.training.keep,
            keep_every=config.training.keep_every,
            best=lambda: records.best_step(workdir, best) if best else None,
        )
        first, state = checkpoints.restore(abstract) or (0, init(build.init_key(config)))
        project = config.training.wandb
        also = [WandbWriter(workdir, project, record["config"])] if project else []
        writer = metrics.Metrics(workdir, first, also)
        height, width, channels = facts.shape
        size = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
        print(f"data   {config.data.name}: {facts.count} images of {height} x {width} x {channels}")
        print(f"model  {config.model.name}: {size:,} parameters on {mesh.size} {jax.devices()[0].platform} device(s)")
        print(
            f"run    {workdir}: {'resumed at' if first else 'starts at'} step {first} of {config.training.num_steps}",
            flush=True,
        )

        def preview(step: int, state: State) -> None:
            for name, params in (("", state.ema_params), ("_raw", state.params)):
                sheet = pictures.visible(pictures.grid(samples(params, PREVIEW_IMAGES, seed=PREVIEW_SEED)))
                pictures.save_png(workdir / "samples" / f"{step:08d}{name}.png", sheet)
                writer.image(step, f"samples{name}", sheet)

        began, evaluating = time.monotonic(), []

        def figures(step: int, state: State) -> None:
            start = time.monotonic()
            try:
                source = of_run(
                    evaluated_samples,
                    state.ema_params,
                    evaluated,
                    facts.shape,
                    None,
                    name=str(workdir),
                    step=step,
                    num=config.evaluation.num,
                    seed=EVALUATION_SEED,
                    when="training",
                )
                made = evaluator(evaluator.samples(source, None))
            except InputError as error:  # no reason to lose the run
                logging.warning("no figures at step %d: %s", step, error)
                return
            records.store(workdir, made)
            writer.chart(step, {f"evaluation/{name}": value for name, value in made["figures"].items()})
            evaluating.append(time.monotonic() - start)

        with ProgressBar(first, config.training.num_steps) as bar:

            def report(step: int, figures: dict) -> None:
                bar(step, figures)
                if figures:
                    writer.scalars(step, figures)

            step, state = loop.train(
                state,
                steps,
                feed.start(int(state.batch)),
                plan,
                steps_per_dispatch=steps_per_dispatch,
                evaluate=figures,
                save=lambda step, state: checkpoints.save(step, state, record),
                preview=preview,
                progress=report,
                interrupted=interrupted,
            )
        checkpoints.finish()
        writer.close()
        if interrupted():
            print(f"step {step} is saved in {workdir}; the same command goes on from there")
            return interrupt.EXIT_CODE

    if evaluating:
        share = sum(evaluating) / (time.monotonic() - began)
        print(f"figures   {workdir}/evaluation.jsonl: {len(evaluating)} evaluation(s) took {share:.1%} of the time")
    pictures.save_loss_curve(workdir / "loss.png", metrics.read(workdir))
    print(f"loss      {workdir}/loss.png, {workdir}/metrics.jsonl, tensorboard --logdir {workdir}/tensorboard")
    if config.training.sample_every:
        path = samples.path(state.ema_params, PREVIEW_PATHS, seed=PREVIEW_SEED)
        pictures.save_png(workdir / "samples" / "path.png", pictures.strip(path))
        pictures.save_gif(workdir / "samples" / "path.gif", path)
        print(
            f"samples   {workdir}/samples/{step:08d}.png (step {step}, EMA), path.png and path.gif (from noise to image)"
        )
    print(f"notebook  import ddpm; run = ddpm.load('{workdir}'); run.sample(16)")
    return 0


def sample(config: ConfigDict | None, workdir: pathlib.Path, *, num: int, seed: int, **opening) -> int:
    """Draws images of a run by `config.sampler`; writes them as .npz and the first of them as a grid."""
    run = _open(config, workdir, **opening)
    choice = run.config.sampler
    images = run.sampler()(run.params, num, seed=seed, progress=lambda done: print(f"{done}/{num} images", flush=True))
    name = f"{workdir}/samples/step{run.step}_{build.own_name(choice)}{choice.num_steps}_seed{seed}"
    pictures.save_png(pathlib.Path(f"{name}.png"), pictures.grid(images[:PREVIEW_IMAGES]))
    np.savez_compressed(f"{name}.npz", arr_0=images)
    print(f"samples   {name}.png, {name}.npz (step {run.step}, EMA, {run.sampler().nfe} network evaluations an image)")
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
    """Figures of a run's samples, for each sampler and number of steps; adds them to workdir/evaluation.jsonl."""
    run = _open(config, workdir, **opening)
    for name, steps in itertools.product(samplers, num_steps):
        choice = dict(seed=seed, sampler=name, num_steps=steps)
        _print_record(run.evaluate(**choice))
        real = run.evaluator().reference
        if real.source is not None:
            picture = _neighbours(run.extracted(**choice), real)
            pictures.save_png(workdir / "evaluation" / "neighbours.png", picture)
    print(f"written to {workdir}/evaluation.jsonl")
    return 0


def evaluate_images(config: ConfigDict, name: str, out: pathlib.Path | None) -> int:
    """Figures of a folder, a .npz file or a data set against the data of an experiment; with `out`, its statistics only."""
    evaluator = Evaluator(config, build.dataset(config), functools.partial(print, flush=True))
    images = evaluator.images(name)
    if out is None:
        _print_record(evaluator(images))
    else:
        evaluator.write_statistics(out, images)
        print(f"statistics of {images.about['num']} images of {name} written to {out}: --reference {out}")
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


def prepare(config: ConfigDict) -> int:
    """Downloads and prepares the TFDS set of an experiment."""
    if config.data.name != "tfds":
        raise InputError(f"--mode prepare is for data.name = 'tfds'; {config.data.name!r} needs none.")
    print(tfds.prepare(dataset=config.data.tfds.dataset, data_dir=config.data.tfds.data_dir))
    return 0


def _open(
    config: ConfigDict | None, workdir: pathlib.Path, *, step: int | str | None, changes: dict, accept_changes: bool
) -> Run:
    run = load(workdir, step)
    if config is not None:
        check_same_run(to_json(run.config), to_json(config), str(workdir), accept_changes)
        run.config.sampler, run.config.evaluation, run.config.data = config.sampler, config.evaluation, config.data
    run.config.update_from_flattened_dict(changes)
    return run


def _print_record(record: dict) -> None:
    provenance = record["provenance"]
    made, real, network = (provenance[key] for key in ("generated", "reference", "features"))
    how = (
        f", step {made['step']}, {made['params']}, {made['sampler']}, {made['nfe']} network evaluations"
        if "step" in made
        else ""
    )
    print(f"{made['num']} images of {made['name']}{how}")
    print(f"against {real['num']} of {real['name']}, seen by {network['name']} ({network['rule']})")
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


def _check_workdir(record: dict, workdir: pathlib.Path, accept_changes: bool) -> None:
    directory = workdir.absolute() / "checkpoints"
    for step in reversed(checkpoint.steps_in(directory)):
        try:
            before = checkpoint.read_record(directory, step)
        except checkpoint.Broken:
            continue
        for line in check_same_run(before["config"], record["config"], str(workdir), accept_changes):
            logging.warning("changed since checkpoint %d: %s", step, line)
        for package, (was, now) in differences(before["versions"], checkpoint.versions()).items():
            logging.warning(
                "%s was %s at checkpoint %d and is %s: numbers may differ in the last bits", package, was, step, now
            )
        if before["facts"] != json.loads(json.dumps(record["facts"])):
            logging.warning("the data changed since checkpoint %d: %s -> %s", step, before["facts"], record["facts"])
        return


def _steps_per_dispatch(wanted: int, resident: bool) -> int:
    # Not on CPU: convolution gradients inside a scan run 30 times slower there.
    if wanted:
        return wanted if resident else 1
    return 10 if resident and jax.default_backend() != "cpu" else 1
