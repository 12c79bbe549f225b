"""--mode train: makes all that training needs, hands it to the loop, and says where the results are."""

import contextlib
import dataclasses
import json
import logging
import pathlib
import time

import jax
from ml_collections import ConfigDict

from ddpm import build, objective, pictures, samplers
from ddpm.config import check_same_run, differences, to_json
from ddpm.data.images import Facts
from ddpm.errors import InputError
from ddpm.evaluate import Evaluator, best_figure, of_run
from ddpm.evaluation import records
from ddpm.training import checkpoint, interrupt, loop, metrics, sharding
from ddpm.training.progress import ProgressBar
from ddpm.training.state import State, init_state
from ddpm.training.wandb_writer import WandbWriter

SHEET, PATHS, SEED = 64, 8, 0  # images of fixed seeds in samples/
EVALUATION_SEED = 1_000_003  # a stream of its own, away from the seeds that one would ask for


def train(config: ConfigDict, workdir: pathlib.Path, *, accept_changes: bool) -> int:
    """Trains an experiment, or goes on with it from its newest intact checkpoint; returns the exit code."""
    plan, mesh = build.plan(config), sharding.data_mesh()
    replicated, split = sharding.replicated(mesh), sharding.split(mesh)
    sharding.check_divisible("training.batch_size", config.training.batch_size, mesh)
    images = build.dataset(config)
    facts = images.facts
    record = {"config": to_json(config), "facts": dataclasses.asdict(facts)}
    diffusion = objective.diffusion(config, facts.shape, len(facts.classes))
    history = objective.times_drawn(config, diffusion.process).history
    tx = build.gradient_transformation(config)
    _check_workdir(record, workdir, accept_changes)

    draws = config.training.sample_every or config.training.evaluate_every or not diffusion.classifies
    samples = samplers.sampler(config, diffusion, facts.shape, mesh, lambda: images) if draws else None
    # Initialising runs once: to optimise its program takes longer than it saves.
    init = jax.jit(
        lambda key: init_state(diffusion.init(key), tx, history),
        out_shardings=replicated,
        compiler_options={"xla_backend_optimization_level": 0},
    )
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
        jax.eval_shape(init, objective.init_key(config)),
    )
    evaluation = _Evaluation(config, images, diffusion, mesh) if draws else None
    best = best_figure(config.evaluation)
    feed = build.batches(config, diffusion, images, split=split, replicated=replicated)
    steps_per_dispatch = _steps_per_dispatch(config.training.steps_per_dispatch, feed.resident)
    first_batches = steps_per_dispatch * plan.accumulate if steps_per_dispatch > 1 else 1
    steps = loop.compile_steps(build.train_step(config, diffusion, tx), feed, config.seed, abstract, first_batches)

    with contextlib.ExitStack() as closing:
        interrupted = closing.enter_context(interrupt.interruptible())

        def heed(done: int) -> None:
            if interrupted():
                raise interrupt.Interrupted

        workdir.mkdir(parents=True, exist_ok=True)
        checkpoints = checkpoint.Checkpoints(
            workdir,
            keep=config.training.keep,
            keep_every=config.training.keep_every,
            best=lambda: records.best_step(workdir, best) if best else None,
        )
        closing.callback(checkpoints.close)  # after an error too, what is being written gets written
        first, state = checkpoints.restore(abstract) or (0, init(objective.init_key(config)))
        records.forget_after(workdir, first)
        project = config.training.wandb
        writer = metrics.Metrics(workdir, first, [WandbWriter(workdir, project, record["config"])] if project else [])
        closing.callback(writer.close)
        _introduce(config, workdir, facts, abstract, mesh, first)

        def preview(step: int, state: State) -> None:
            for name, params in (("", state.ema_params), ("_raw", state.params)):
                file = workdir / "samples" / f"{step:08d}{name}.png"
                if step > first or not file.exists():
                    drawn = samples(params, SHEET, seed=SEED, progress=heed)
                    sheet = pictures.visible(pictures.grid(drawn))
                    pictures.save_png(file, sheet)
                    writer.image(step, f"samples{name}", sheet)

        def evaluate(step: int, state: State) -> None:
            if step > first or not _is_evaluated(workdir, step):
                figures = evaluation(workdir, step, state, heed)
                writer.chart(step, {f"evaluation/{name}": value for name, value in figures.items()})

        began = time.monotonic()
        with ProgressBar(first, plan.num_steps) as bar:

            def log(step: int, figures: dict) -> None:
                bar(step, figures)
                if figures:
                    writer.scalars(step, figures)

            step, state = loop.train(
                state,
                steps,
                feed.start(int(state.batch)),
                plan,
                steps_per_dispatch=steps_per_dispatch,
                save=lambda step, state: checkpoints.save(step, state, record),
                evaluate=evaluate,
                preview=preview,
                progress=log,
                interrupted=interrupted,
            )
        took = time.monotonic() - began
        checkpoints.finish()
        if interrupted():
            print(f"step {step} is saved in {workdir}; the same command goes on from there")
            return interrupt.EXIT_CODE

    if evaluation and evaluation.seconds:
        share, times = sum(evaluation.seconds) / took, len(evaluation.seconds)
        print(f"figures   {workdir}/evaluation.jsonl: {times} evaluation(s) took {share:.1%} of the time")
    pictures.save_loss_curve(workdir / "loss.png", metrics.read(workdir))
    print(f"loss      {workdir}/loss.png, {workdir}/metrics.jsonl, tensorboard --logdir {workdir}/tensorboard")
    if config.training.sample_every:
        path = samples.path(state.ema_params, PATHS, seed=SEED)
        pictures.save_png(workdir / "samples" / "path.png", pictures.strip(path))
        pictures.save_gif(workdir / "samples" / "path.gif", path)
        sheet = f"{workdir}/samples/{step:08d}.png"
        print(f"samples   {sheet} (step {step}, EMA), path.png and path.gif (from noise to image)")
    if diffusion.classifies:
        print(f"guides    --mode sample --workdir RUN --labels 0 --classifiers {workdir}")
    else:
        print(f"notebook  import ddpm; run = ddpm.load('{workdir}'); run.sample(16)")
    return 0


class _Evaluation:
    """Figures of the EMA while training, by a sampler and seeds of their own; what they cost is in `seconds`."""

    def __init__(self, config, images, diffusion, mesh):
        self._config = build.with_sampler(config, config.evaluation.sampler, config.evaluation.num_steps)
        self._evaluator, self._shape = Evaluator(config, images), images.facts.shape
        self._sampler = samplers.sampler(self._config, diffusion, self._shape, mesh, lambda: images)
        self.seconds = []

    def __call__(self, workdir, step, state, heed) -> dict[str, float]:
        """The figures, stored with their provenance; none, and a warning, where they cannot be computed."""
        start = time.monotonic()
        about = dict(name=str(workdir), step=step, num=self._config.evaluation.num, seed=EVALUATION_SEED)
        try:
            source = of_run(self._sampler, state.ema_params, self._config, self._shape, None, when="training", **about)
            made = self._evaluator(self._evaluator.samples(_heeding(source, heed), None))
        except InputError as error:  # no reason to lose the run
            logging.warning("no figures at step %d: %s", step, error)
            return {}
        records.store(workdir, made)
        self.seconds.append(time.monotonic() - start)
        return made["figures"]


def _is_evaluated(workdir, step):
    made = (row["provenance"]["generated"] for row in records.read(workdir))
    return any(about.get("when") == "training" and about["step"] == step for about in made)


def _heeding(source, heed):
    def read(first):
        for batch in source.read(first):
            heed(len(batch))
            yield batch

    return dataclasses.replace(source, read=read)


def _introduce(config, workdir, facts: Facts, abstract: State, mesh, first: int) -> None:
    height, width, channels = facts.shape
    size = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    print(f"data   {config.data.name}: {facts.count} images of {height} x {width} x {channels}")
    print(f"model  {config.model.name}: {size:,} parameters on {mesh.size} {jax.devices()[0].platform} device(s)")
    begins = f"resumed at step {first}" if first else "starts at step 0"
    print(f"run    {workdir}: {begins} of {config.training.num_steps}", flush=True)


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
