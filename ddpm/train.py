"""--mode train: makes all that training needs, hands it to the loop, and says where the results are."""

import contextlib
import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from ddpm import build, datasets, objective, pictures, remote, sharding, train_autoencoder, train_diffusion
from ddpm.config import check_same_run, differences, to_json
from ddpm.data.images import Facts
from ddpm.distribution import EXIT_CODE
from ddpm.errors import InputError, check_at_least
from ddpm.evaluate import best_figure
from ddpm.evaluation import records
from ddpm.training import checkpoint, interrupt, loop, memory, metrics
from ddpm.training.lock import locked
from ddpm.training.progress import ProgressBar
from ddpm.training.state import State
from ddpm.training.tensorboard_writer import TensorboardWriter
from ddpm.training.wandb_writer import WandbWriter
from ddpm.training.watchdog import Watchdog


def train(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    accept_changes: bool,
    watch: Callable[[int, dict], None] = lambda step, figures: None,
) -> int:
    """Trains an experiment, or goes on with it from its newest intact checkpoint; returns the exit code.

    Args:
      accept_changes: go on with a run whose configuration changed.
      watch: told the figures of a step once they are written; what it raises ends the run.
    """
    plan, mesh = build.plan(config), sharding.training_mesh(config.mesh.fsdp, config.mesh.tensor)
    sharding.check_divisible("training.batch_size", config.training.batch_size, mesh)
    images = datasets.training_set(config)
    facts = images.facts
    record = {"config": to_json(config), "facts": dataclasses.asdict(facts)}
    _check_workdir(record, workdir, accept_changes)
    task = (train_autoencoder if config.autoencoder.name else train_diffusion).task(config, images, mesh)

    # Initialising runs once: to optimise its program takes longer than it saves.
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.of_state(mesh, leaf.shape)),
        jax.eval_shape(task.init, objective.init_key(config)),
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = jax.jit(task.init, out_shardings=shardings, compiler_options={"xla_backend_optimization_level": 0})
    best = best_figure(config.evaluation)
    writes = sharding.is_first()
    steps_per_dispatch = _steps_per_dispatch(config.training.steps_per_dispatch, task.feed.resident)
    first_batches = steps_per_dispatch * plan.accumulate if steps_per_dispatch > 1 else 1
    about = None if config.autoencoder.name else record  # an autoencoder's step holds a network, of megabytes
    steps = loop.Steps(task.step, task.feed, config.seed, abstract, first_batches, about)
    evaluations = []  # seconds that each took

    with contextlib.ExitStack() as closing:
        watchdog = closing.enter_context(Watchdog(config.training.hang_after).watching())
        interrupted = closing.enter_context(interrupt.interruptible())

        def heed(done: int) -> None:
            if jax.process_count() == 1 and interrupted():  # several have to ask together: after each step alone
                raise interrupt.Interrupted

        workdir.mkdir(parents=True, exist_ok=True)
        if not remote.address(workdir):
            sharding.check_shared(workdir)
            closing.enter_context(locked(workdir) if writes else contextlib.nullcontext())
        held = memory.needs(abstract, task.feed.given, 0)
        memory.check(held, memory.available())  # before any of it is there
        checkpoints = checkpoint.Checkpoints(
            workdir,
            keep=config.training.keep,
            keep_every=config.training.keep_every,
            best=lambda: records.best_step(workdir, best) if best else None,
        )
        closing.callback(checkpoints.close)  # after an error too, what is being written gets written
        first, state = checkpoints.restore(abstract) or (0, init(objective.init_key(config)))
        if writes:
            records.forget_after(workdir, first)
            project = config.training.wandb
            also = [WandbWriter(workdir, project, record["config"])] if project else []
            writer = metrics.Metrics(workdir, first, [TensorboardWriter(workdir / "tensorboard", first), *also])
            closing.callback(writer.close)
        _introduce(config, workdir, task.name, facts, abstract, mesh, first)
        needed = held | {"activations": steps.activations()}
        print(f"memory {memory.check(needed, memory.available())}", flush=True)

        def save(step: int, state: State) -> None:
            watchdog.waits("a checkpoint to be written")
            steps.check()
            remote.push(workdir)  # first: a checkpoint says that all before it is there
            checkpoints.save(step, state, record)
            watchdog.waits(None)

        def preview(step: int, state: State) -> None:
            for name, params in (("", state.ema_params), ("_raw", state.params)):
                file, here = workdir / "samples" / f"{step:08d}{name}.png", sharding.here(params)
                if writes and (step > first or not file.exists()):
                    sheet = task.sheet(here, heed)
                    pictures.save_png(file, sheet)
                    writer.image(step, f"samples{name}", sheet)
            sharding.wait_for_all(f"samples of step {step}")

        def evaluate(step: int, state: State) -> None:
            state = dataclasses.replace(state, ema_params=sharding.here(state.ema_params))
            if writes and (step > first or not _is_evaluated(workdir, step)):
                began = time.monotonic()
                figures = task.evaluate(workdir, step, state, heed)
                if figures:
                    evaluations.append(time.monotonic() - began)
                writer.chart(step, {f"evaluation/{name}": value for name, value in figures.items()})
                watch(step, figures)
            sharding.wait_for_all(f"figures of step {step}")

        began = time.monotonic()
        with ProgressBar(first, plan.num_steps) if writes else contextlib.nullcontext() as bar:

            def log(step: int, figures: dict) -> None:
                watchdog.waits("the figures to be written")
                if writes:
                    bar(step, figures)
                    if figures:
                        writer.scalars(step, figures)
                        watch(step, figures)
                watchdog.waits(None)

            step, state = loop.train(
                state,
                steps,
                watchdog.over(task.feed.start(int(state.batch))),
                plan,
                steps_per_dispatch=steps_per_dispatch,
                save=save,
                evaluate=evaluate,
                preview=preview,
                progress=log,
                interrupted=interrupted,
            )
        took = time.monotonic() - began
        watchdog.waits("the last checkpoint to be written")
        checkpoints.finish()
        watchdog.waits(None)
        if interrupted():
            print(f"step {step} is saved in {remote.address(workdir) or workdir}; the same command goes on from there")
            return EXIT_CODE

    if evaluations:
        share, times = sum(evaluations) / took, len(evaluations)
        print(f"figures   {workdir}/evaluation.jsonl: {times} evaluation(s) took {share:.1%} of the time")
    state = dataclasses.replace(state, ema_params=sharding.here(state.ema_params))
    if not writes:
        return 0
    pictures.save_loss_curve(workdir / "loss.png", metrics.read(workdir))
    print(f"loss      {workdir}/loss.png, {workdir}/metrics.jsonl, tensorboard --logdir {workdir}/tensorboard")
    for line in task.finish(workdir, step, state):
        print(line)
    return 0


def _is_evaluated(workdir, step):
    made = (row["provenance"]["generated"] for row in records.read(workdir))
    return any(about.get("when") == "training" and about["step"] == step for about in made)


def _introduce(config, workdir, name: str, facts: Facts, abstract: State, mesh, first: int) -> None:
    height, width, channels = facts.shape
    size = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    print(f"data   {config.data.name}: {facts.count} images of {height} x {width} x {channels}")
    print(f"model  {name}: {size:,} parameters on {mesh.size} {jax.devices()[0].platform} device(s)")
    begins = f"resumed at step {first}" if first else "starts at step 0"
    print(f"run    {remote.address(workdir) or workdir}: {begins} of {config.training.num_steps}", flush=True)


def _check_workdir(record: dict, workdir: pathlib.Path, accept_changes: bool) -> None:
    directory = remote.checkpoints(workdir)
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
        was, now = Facts.from_json(before["facts"]), Facts.from_json(record["facts"])
        if was.scale != now.scale and not accept_changes:
            raise InputError(
                f"{workdir} was trained on latents of {_scaled(was.scale)}, and these are of {_scaled(now.scale)}: give "
                "latents.path with latents of its own autoencoder and scale, or another --workdir."
            )
        if was != now:
            logging.warning("the data changed since checkpoint %d: %s -> %s", step, before["facts"], record["facts"])
        return


def _scaled(scale):
    return f"autoencoder {scale.autoencoder}, scale {scale.std[0]:.4g} ..." if scale else "no autoencoder"


def _steps_per_dispatch(wanted: int, resident: bool) -> int:
    check_at_least(0, **{"training.steps_per_dispatch": wanted})
    if wanted > 1 and not resident:
        logging.warning("training.steps_per_dispatch = %d is 1: several steps need the data in memory", wanted)
    if wanted:
        return wanted if resident else 1
    # Not on CPU: convolution gradients inside a scan run 30 times slower there.
    return 10 if resident and jax.default_backend() != "cpu" else 1
