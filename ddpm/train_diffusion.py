"""The training of a diffusion model: its samples, and their figures."""

import dataclasses
import logging

import jax
from ml_collections import ConfigDict

from ddpm import build, datasets, objective, pictures, samplers, sharding
from ddpm.data.images import Dataset
from ddpm.errors import InputError
from ddpm.evaluate import Evaluator, of_run
from ddpm.evaluation import records
from ddpm.training.state import init_state
from ddpm.training.task import Task

SHEET, PATHS, SEED = 64, 8, 0  # images of fixed seeds in samples/
EVALUATION_SEED = 1_000_003  # a stream of its own, away from the seeds that one would ask for


def task(config: ConfigDict, images: Dataset, mesh: jax.sharding.Mesh) -> Task:
    """The training of the model of a configuration on images, or on latents."""
    facts = images.facts
    diffusion = objective.diffusion(config, facts.shape, len(facts.classes))
    history = objective.times_drawn(config, diffusion.process).history
    tx = build.gradient_transformation(config)
    draws = config.training.sample_every or config.training.evaluate_every or not diffusion.classifies
    samples = samplers.sampler(config, diffusion, facts, sharding.data_mesh(), lambda: images) if draws else None
    evaluation = _Evaluation(config, images, diffusion) if config.training.evaluate_every else None

    def sheet(params, heed):
        return pictures.visible(pictures.grid(samples(params, SHEET, seed=SEED, progress=heed)))

    def finish(workdir, step, state):
        if config.training.sample_every:
            path = samples.path(state.ema_params, PATHS, seed=SEED)
            pictures.save_png(workdir / "samples" / "path.png", pictures.strip(path))
            pictures.save_gif(workdir / "samples" / "path.gif", path)
            drawn = f"{workdir}/samples/{step:08d}.png"
            yield f"samples   {drawn} (step {step}, EMA), path.png and path.gif (from noise to image)"
        if diffusion.classifies:
            yield f"guides    --mode sample --workdir RUN --labels 0 --classifiers {workdir}"
        else:
            yield f"notebook  import ddpm; run = ddpm.load('{workdir}'); run.sample(16)"

    return Task(
        config.model.name,
        lambda key: init_state(diffusion.init(key), tx, history),
        build.train_step(config, diffusion, tx),
        datasets.batches(config, diffusion, images, split=sharding.split(mesh), replicated=sharding.replicated(mesh)),
        sheet if draws else None,
        evaluation,
        finish,
    )


class _Evaluation:
    """Figures of the EMA while training, by a sampler and seeds of their own."""

    def __init__(self, config, images, diffusion):
        self._config = build.with_sampler(config, config.evaluation.sampler, config.evaluation.num_steps)
        self._evaluator = Evaluator(config, datasets.dataset(config) if images.scale else images)
        self._sampler = samplers.sampler(self._config, diffusion, images.facts, sharding.data_mesh(), lambda: images)

    def __call__(self, workdir, step, state, heed) -> dict[str, float]:
        """The figures, stored with their provenance; none, and a warning, where they cannot be computed."""
        about = dict(name=str(workdir), step=step, num=self._config.evaluation.num, seed=EVALUATION_SEED)
        try:
            source = of_run(self._sampler, state.ema_params, self._config, None, when="training", **about)
            made = self._evaluator(self._evaluator.samples(_heeding(source, heed), None))
        except InputError as error:  # no reason to lose the run
            logging.warning("no figures at step %d: %s", step, error)
            return {}
        records.store(workdir, made)
        return made["figures"]


def _heeding(source, heed):
    def read(first):
        for batch in source.read(first):
            heed(len(batch))
            yield batch

    return dataclasses.replace(source, read=read)
