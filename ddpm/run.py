"""A trained run, opened in a notebook: its configuration, EMA parameters, samples and denoiser."""

import functools
import json
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm import build, datasets, latent_space, remote, sharding, trained
from ddpm.condition import NOTHING, same_for_all
from ddpm.config import from_json
from ddpm.data.pixels import to_images, to_pixels
from ddpm.diffusion.process import Noiseless, Process
from ddpm.errors import InputError
from ddpm.evaluate import Evaluator, best_figure, of_run
from ddpm.evaluation import records
from ddpm.evaluation.extract import Extracted
from ddpm.guides import guides, scales
from ddpm.likelihood import likelihood
from ddpm.samplers import asked, encoded
from ddpm.sampling.batched import BatchedSampler
from ddpm.sampling.conditions import check_labels
from ddpm.sampling.denoise import denoiser
from ddpm.shapes import Data, Time
from ddpm.trained import Trained
from ddpm.training import checkpoint


class Run:
    """A model at a step of its training. Samples and figures are those of the EMA parameters.

    workdir: where it lives.
    config: the experiment it was trained with.
    step: optimizer updates done, skipped ones included.
    facts: shape, number and classes of its data.
    params: EMA parameters.
    process: the forward process.
    """

    def __init__(self, read: Trained):
        self.workdir, self.config, self.facts, self.step, params = read
        self._mesh = sharding.data_mesh()
        self.params = jax.device_put(params, sharding.replicated(self._mesh))
        self._diffusion = read.diffusion
        self.process: Process = self._diffusion.model(self.params, NOTHING).process
        self._samplers, self._evaluators = {}, {}
        self._denoise = jax.jit(self._denoised, static_argnums=(0, 1))

    def sampler(self, **choice) -> BatchedSampler:
        """What draws this run's images; `choice` is as for `build.with_sampler`: sampler='ddim', num_steps=50, eta=0.5."""
        config = build.with_sampler(self.config, **choice)
        return self._along(config, build.grid(config, self._diffusion))

    def _along(self, config: ConfigDict, times: np.ndarray) -> BatchedSampler:
        section = config.sampler  # of which one program serves all grids, labels and scales
        on = {"scale": config.guidance.scale == 1, "classifier_scale": None, "function_scale": None}
        guidance = config.guidance.to_dict() | on
        anew = {"num_steps": None, "labels": None, "prompts": None, "given": None, "given_noise": None}
        anew |= {"guidance": guidance, "known": config.known.to_dict()}
        program = json.dumps(section.to_dict() | anew, sort_keys=True)
        if program not in self._samplers:
            guided = guides(config, self._diffusion, self.facts)
            sampler = build.batched_sampler(config, self._diffusion, guided, self.facts, self._mesh)
            self._samplers[program] = sampler, guided.classes
        sampler, classes = self._samplers[program]
        wanted = asked(config, self._diffusion, self.facts.shape, classes, lambda: datasets.training_set(self.config))
        return sampler.along(times, wanted, scales(config))

    def sample(self, num: int, *, seed: int = 0, **choice) -> np.ndarray:
        """Images 0..num-1 of a seed: uint8 [num, height, width, channels]; `choice` is as for `sampler`."""
        return self.sampler(**choice)(self.params, num, seed=seed)

    def path(self, num: int, *, seed: int = 0, **choice) -> np.ndarray:
        """The same images on their way from noise: uint8 [num_steps + 1, num, height, width, channels]."""
        return self.sampler(**choice).path(self.params, num, seed=seed)

    def encode(self, images: np.ndarray, **choice) -> np.ndarray:
        """x_T of images, uint8 [num, height, width, channels], along the rising grid of a deterministic sampler; `choice` as for `sampler`.

        The ODE starts at t_min, where the least noise is, with x = x_0.

        Raises:
          InputError: images of another shape, or a sampler that draws noise.

        Song et al. 2021 (DDIM), Eq. 14 and section 5.4.
        """
        shape = self._space.image_shape(self.facts.shape) if self._space else self.facts.shape
        if images.shape[1:] != shape or images.dtype != np.uint8:
            raise InputError(
                f"images are {images.dtype} of shape {images.shape[1:]}; they must be uint8 of shape {shape}."
            )
        x_0 = self._space.encode(images) if self._space else np.asarray(to_images(jnp.asarray(images)))
        return self._led(x_0, choice, rising=True)

    def decode(self, x_T: np.ndarray, **choice) -> np.ndarray:
        """The images that `encode` made x_T of, uint8, but for the error of the steps; `choice` as there."""
        x_0 = self._led(x_T, choice, rising=False)
        return self._space.decode(x_0) if self._space else np.asarray(to_pixels(jnp.asarray(x_0)))

    @functools.cached_property
    def _space(self):
        return latent_space.of(self.config, self.facts, self._mesh)

    def _led(self, x, choice, rising):
        config = build.with_sampler(self.config, **({"sampler": "ddim"} | choice))
        config.grid.final = "sigma_min"
        if not build.sampler_of(config, self._diffusion)(Noiseless(self.process), None).deterministic:
            raise InputError(
                f"sampler '{config.sampler.name}' draws noise: encode with ddim at eta 0, dpm_solver_pp, unipc ..."
            )
        times = build.grid(config, self._diffusion)
        return self._along(config, times[::-1] if rising else times).lead(self.params, x)

    def evaluator(self) -> Evaluator:
        """What compares this run's images with real ones by `config.evaluation`."""
        wanted = self.config.evaluation.to_json(sort_keys=True) + self.config.data.to_json(sort_keys=True)
        if wanted not in self._evaluators:
            self._evaluators[wanted] = Evaluator(
                self.config, datasets.dataset(self.config), functools.partial(print, flush=True)
            )
        return self._evaluators[wanted]

    def draw_together(self, *, seed: int = 0, **choice) -> None:
        """Draws what `extracted` is to find in workdir/evaluation, each process a share; all have to call it."""
        self._source(seed, choice, together=True)

    def extracted(self, *, seed: int = 0, **choice) -> Extracted:
        """Images 0..config.evaluation.num-1 of a seed as metrics see them; kept in workdir/evaluation. `choice` is as for `sampler`."""
        return self.evaluator().samples(self._source(seed, choice), self.workdir / "evaluation" / "features")

    def _source(self, seed, choice, together=False):
        return of_run(
            self.sampler(**choice),
            self.params,
            build.with_sampler(self.config, **choice),
            self.workdir / "evaluation" / "samples",
            name=str(self.workdir),
            step=self.step,
            num=self.config.evaluation.num,
            seed=seed,
            when="afterwards",
            together=together,
        )

    def evaluate(self, *, seed: int = 0, **choice) -> dict:
        """{'figures', 'provenance'} of these images by `config.evaluation`; adds them to workdir/evaluation.jsonl."""
        record = self.evaluator()(self.extracted(seed=seed, **choice))
        records.store(self.workdir, record)
        remote.push(self.workdir)
        return record

    def likelihood(self, metric: str, *, seed: int = 0) -> tuple[dict, dict[str, np.ndarray]]:
        """{'figures', 'provenance'} of 'vlb_bpd' or 'ode_bpd' of the reference of `config.evaluation`, which it adds to
        workdir/evaluation.jsonl; and what it says of each image, kept in workdir/evaluation.
        """
        self._check_draws(metric)
        record, arrays = likelihood(
            metric, self.config, datasets.dataset(self.config), self._diffusion, self.params, self.facts.shape,
            self.workdir / "evaluation" / "likelihood",
            name=str(self.workdir), step=self.step, seed=seed, progress=functools.partial(print, flush=True),
        )  # fmt: skip
        records.store(self.workdir, record)
        remote.push(self.workdir)
        return record, arrays

    def denoise(
        self,
        x_t: Data,
        t: Time,
        labels: np.ndarray | int | None = None,
        prompts: Sequence[str] | str | None = None,
    ) -> tuple[Data, Data]:
        """(x0_hat, eps_hat) of noised images x_t [batch, height, width, channels] at times t, [batch] or one for all.

        Args:
          t: integers in 1..T where the process has a table, else reals in [t_min, T].
          labels: classes, [batch] or one for all, of a model that is told them; None for none.
          prompts: texts, [batch] or one for all, of a model that is told them; None for none.
        Raises:
          InputError: images of another shape, a time out of range, or what the model is not told.
        """
        self._check_draws("denoise")
        if self._diffusion.told.degradation:
            raise InputError("the model is told an image: run.sample(given=...) restores it, denoise has none to tell.")
        t = np.asarray(t)
        if x_t.shape[1:] != self.facts.shape:
            raise InputError(f"x_t of shape {x_t.shape} is no batch of images of shape {self.facts.shape}.")
        t_min, T, discrete = self.process.t_min, self.process.T, self.process.discrete
        if (discrete and not np.issubdtype(t.dtype, np.integer)) or t.min() < t_min or t.max() > T:
            times = f"integers in 1..{T}" if discrete else f"in [{t_min:g}, {T:g}]"
            raise InputError(f"t = {t} must be {times}; at t = 0 there is no noise to take away.")
        condition, told = None, self._diffusion.told
        if labels is not None or prompts is not None:
            condition = same_for_all(told.null or NOTHING, len(x_t))
        if labels is not None:
            check_labels(np.ravel(labels).tolist(), told.classes)
            condition = condition._replace(labels=np.broadcast_to(np.asarray(labels, np.int32), len(x_t)))
        if prompts is not None:
            features, mask = encoded(told, (prompts,) if isinstance(prompts, str) else tuple(prompts))
            rows = np.broadcast_to(np.arange(len(features)), len(x_t))
            condition = condition._replace(text=features[rows], mask=mask[rows])
        return self._denoise(self.config.sampler.clip, self.config.sampler.percentile, self.params, x_t, t, condition)

    def _check_draws(self, what: str) -> None:
        if self._diffusion.classifies:
            raise InputError(f"{self.workdir} is a classifier of noised images: it draws none, and has no {what}.")

    def _denoised(self, clip, percentile, params, x_t, t, condition):
        return denoiser(self._diffusion.model(params, condition), clip=clip, percentile=percentile)(x_t, t)[:2]


def load(workdir: str | pathlib.Path, step: int | str | None = None) -> Run:
    """Opens a run at its newest intact checkpoint, or at a step; on any devices, whatever trained it.

    Args:
      workdir: the run's directory.
      step: of the checkpoint; None for the newest, 'best' for the one that did best in the evaluations of its training.
    Raises:
      InputError: no such run or step, or no intact checkpoint.
    """
    if isinstance(step, str) and step != "best":
        raise InputError(f"step = {step!r} is neither a whole number nor 'best'.")
    return Run(trained.read(workdir, best(workdir) if step == "best" else step))


def best(workdir: str | pathlib.Path) -> int:
    """The step of the checkpoint that did best in the evaluations of its training.

    Raises:
      InputError: there is none.
    """
    workdir = remote.local(workdir)
    directory, steps = trained.checkpoints(workdir)
    record = trained.newest(directory, steps, checkpoint.read_record)[1]
    figure = best_figure(from_json(record["config"]).evaluation)
    step = records.best_step(workdir, figure, steps) if figure else None
    if step is None:
        raise InputError(
            f"no checkpoint of {workdir} was evaluated while training, so none is best; "
            f"there are {', '.join(map(str, steps))}."
        )
    return step
