"""Any number of images from one compiled program of a fixed batch size."""

import copy
import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from ddpm.condition import NOTHING, Condition, same_for_all
from ddpm.data.pixels import to_pixels
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import Noiseless, Process
from ddpm.errors import InputError, check_at_least
from ddpm.rng import per_index, stream
from ddpm.sampling.conditions import UNASKED, Asked
from ddpm.sampling.denoise import Told, denoiser
from ddpm.sampling.driver import Sampler, generate, solve
from ddpm.sampling.eps_power import interpolated
from ddpm.sampling.guidance import Guides
from ddpm.sampling.known import Kept, keeping, replaced

SHORTEST = 64  # times of a filled-up grid


class Batch(NamedTuple):
    """Some images of a seed.

    images: uint8 [b, height, width, channels].
    finite: whether each is; those that are not are black where they are not.
    nfe: network evaluations of each.
    labels: the class each was asked for, of a model with classes.
    """

    images: np.ndarray
    finite: np.ndarray
    nfe: np.ndarray
    labels: np.ndarray | None = None


class BatchedSampler:
    """Draws images; image i of a seed is the same alone, in any number of images, and on any number of devices.

    A batch is always of `batch_size`, filled up where fewer are asked, and a grid of steps is filled up as well, so that
    neither the number of images nor the seed nor the number of steps compiles anew. If one batch does not fit the memory,
    half of it is tried. A CPU that is one device of several cores draws the halves of an even batch at once, as while one waits
    for a core the other computes, but with DDPM_HALVES=0 in the environment.

    Args:
      model: (params, condition) -> Model.
      guided: by what; `alone` for the model as it is.
      algorithm: (Process, eps_power) -> Sampler.
      times: the grid, as of grids.py.
      shape: (height, width, channels).
      clip, percentile: as for `denoiser`.
      batch_size: images a batch, over all devices; rounded up to a multiple of their number.
      replicated, split: shardings of the parameters and of a batch.
      null: the model's condition that tells nothing.
      space: the LatentSpace by which latents become images; None for a model of images.
      asked: what the images are asked for.
      kept: what they keep of the images they are given.
      eps_power: (params, times) -> that of eps_power.py at each time, if the algorithm needs it.
    Raises:
      InputError: batch_size < 1.
    """

    def __init__(
        self,
        model: Callable[..., Model],
        guided: Guides,
        algorithm: Callable[[Process, Any], Sampler],
        times: np.ndarray,
        shape: tuple[int, int, int],
        *,
        clip: bool,
        percentile: float | int = 0,
        batch_size: int,
        replicated: jax.sharding.Sharding,
        split: jax.sharding.Sharding,
        null: Condition | None = None,
        space: Any = None,
        asked: Asked = UNASKED,
        kept: Kept | None = None,
        eps_power: Callable[[Any, np.ndarray], np.ndarray] | None = None,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size = {batch_size} must be at least 1.")
        self._null, self._asked, self._scales = null, asked, guided.scales
        self._others = jax.device_put(guided.others, replicated)
        self._devices = split.num_devices
        cpu = self._devices == 1 and split.mesh.devices.item().platform == "cpu"
        self._halves = cpu and (os.cpu_count() or 1) > 1 and os.environ.get("DDPM_HALVES") != "0"
        self._batch_size = -(-batch_size // self._devices) * self._devices
        self._compiled, self._known = {}, {}
        self._times, self._shape, self._eps_power = times, shape, eps_power
        self._noise = "sample"
        self.image_shape = space.image_shape(shape) if space else shape
        self._decode = space.decode if space else lambda pixels: pixels
        shown = (lambda x: x) if space else to_pixels  # what leaves the device

        def prepared(params, condition, times, found, scales, others):
            process = model(params, condition).process

            def denoiser_told(condition):
                bound = guided.of(params, others, scales, condition)
                return denoiser(bound, clip=clip, percentile=percentile)

            sampler = algorithm(Noiseless(process), None if found is None else interpolated(times, found))
            return process, sampler, Told(denoiser_told, condition)

        def drawn(params, key, indices, condition, given, times, num_steps, found, scales, others, keep_path):
            process, sampler, denoise = prepared(params, condition, times, found, scales, others)
            if kept and kept.resamples:
                sampler = keeping(sampler, Noiseless(process), kept.project(given), given.image, kept.resamples)
            # A grid may start later than T, with less noise.
            prior = process.prior_scale * process.sigma(times[0]) / process.sigma(process.T)
            options = dict(num_steps=num_steps, keep_path=keep_path)
            run = generate(sampler, denoise, times, per_index(key, indices), shape, prior_scale=prior, **options)
            return run._replace(x=replaced(run.x, kept.project(given), given.image)) if kept else run

        def images(*given):
            run = drawn(*given, keep_path=False)
            return Batch(shown(run.x), jnp.isfinite(run.x).all(axis=(1, 2, 3)), guided.nfe * run.nfe, given[3].labels)

        def led(params, x, condition, times, num_steps, found, scales, others):
            _, sampler, denoise = prepared(params, condition, times, found, scales, others)
            return solve(
                sampler, denoise, x, times, per_index(stream(0, "led"), jnp.arange(len(x))), num_steps=num_steps
            ).x

        whole = jax.sharding.NamedSharding(split.mesh, jax.sharding.PartitionSpec(None, *split.spec))
        given = (replicated, replicated, split, split, split, *[replicated] * 5)
        # Beside other processes jit places no NumPy arrays.
        self._place = lambda arrays, placement=given: jax.device_put(arrays, placement[-len(arrays) :])
        self._jitted = {
            "images": jax.jit(images, in_shardings=given, out_shardings=split),
            "path": jax.jit(
                lambda *given: shown(drawn(*given, keep_path=True).path), in_shardings=given, out_shardings=whole
            ),
            "led": jax.jit(led, in_shardings=(replicated, split, split, *given[5:]), out_shardings=split),
        }

    def along(self, times: np.ndarray, asked: Asked, scales: np.ndarray, noise: str = "sample") -> "BatchedSampler":
        """The same on another grid, asked for something else and with other scales of guidance, with the same compiled programs.

        Args:
          noise: name of the stream of its keys.
        """
        other = copy.copy(self)
        other._times, other._known, other._noise = times, {}, noise
        other._asked, other._scales = asked, scales
        return other

    def __call__(
        self, params: Any, num: int, *, seed: int, progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Images 0..num-1 of a seed: uint8 [num, height, width, channels]; those that are not finite are told of.

        Args:
          params: of the network, on the devices.
          progress: told how many are done after each batch.
        """
        check_at_least(1, num=num)
        images, broken = [], 0
        for batch in self.batches(params, num, seed=seed):
            images.append(batch.images)
            broken += int((~batch.finite).sum())
            if progress:
                progress(sum(map(len, images)))
        warn_of_broken(broken, num)
        return np.concatenate(images)

    def batches(self, params: Any, num: int, *, seed: int, first: int = 0) -> Iterator[Batch]:
        """Images first..num-1 of a seed, batch by batch."""
        while first < num:
            try:
                batch = self._batch(params, seed, first, self._batch_size)
            except OutOfMemory as error:
                smaller = self._batch_size // 2 // self._devices * self._devices
                if not smaller:
                    raise InputError(f"not even one image a device fits the memory: {error}.") from error
                logging.warning(
                    "%d images at once do not fit the memory (%s): trying %d", self._batch_size, error, smaller
                )
                self._batch_size = smaller
                continue
            yield Batch(*(rows if rows is None else rows[: num - first] for rows in batch))
            first += len(batch.images)

    def path(self, params: Any, num: int, *, seed: int) -> np.ndarray:
        """The x_t of images 0..num-1, from x_T to x_0: uint8 [num_steps + 1, num, height, width, channels].

        Raises:
          InputError: they do not fit the memory.
        """
        check_at_least(1, num=num)
        try:
            path = self._batch(params, seed, 0, -(-num // self._devices) * self._devices, "path")
        except OutOfMemory as error:
            raise InputError(
                f"the paths of {num} images do not fit the memory ({error}); ask for fewer images or steps."
            ) from error
        return path[: len(self._times), :num]

    def lead(self, params: Any, x: np.ndarray) -> np.ndarray:
        """Where the grid leads x [num, height, width, channels], real: with a rising grid encoding, with a falling one decoding.

        A model is told what it is asked for, or else the null condition.
        """
        asked, none = self._asked.rows, self._null
        if not self._asked.said:
            told = asked(0, np.arange(1))
            if jax.tree.structure(told) != jax.tree.structure(none or NOTHING):
                what = "labels" if told.image is None else "images, as sampler.given"
                raise InputError(f"this model knows no image of which it is told nothing: give {what}.")
            asked = lambda seed, indices: same_for_all(none or NOTHING, len(indices))  # noqa: E731
        size, led = self._batch_size, []
        for start in range(0, len(x), size):
            rows = np.arange(start, start + size).clip(max=len(x) - 1)  # filled up with the last
            given = self._place((x[rows], asked(0, rows), *self._steps(params)))
            led.append(jax.device_get(self._jitted["led"](params, *given)))
        return np.concatenate(led)[: len(x)]

    def _batch(self, params, seed, first, size, kind="images"):
        indices, steps = np.arange(first, first + size, dtype=np.uint32), self._steps(params)
        rows = indices, self._asked.rows(seed, indices), self._asked.given(seed, indices)
        parts = [rows]
        if self._halves and kind == "images" and size % 2 == 0:
            parts = [jax.tree.map(lambda of, n=n: of[n : n + size // 2], rows) for n in (0, size // 2)]
        given = [self._place((stream(seed, self._noise), *part, *steps)) for part in parts]

        def run(of):
            return jax.device_get(program(params, *of))

        try:
            program = self._program(params, kind, given[0], len(parts))
            with ThreadPoolExecutor(1) as beside:
                others = [beside.submit(run, of) for of in given[1:]]
                drawn = [run(given[0]), *(other.result() for other in others)]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemory(str(error).splitlines()[0]) from error
        if kind == "path":
            (path,) = drawn
            return self._decode(path.reshape(-1, *path.shape[2:])).reshape(*path.shape[:2], *self.image_shape)
        whole = jax.tree.map(lambda *rows: np.concatenate(rows), *drawn)
        return whole._replace(images=self._decode(whole.images))

    def _steps(self, params):
        """The grid, filled up to a power of two, its number of steps, the eps_power of these parameters on it, the guides."""
        length = max(SHORTEST, 2 ** math.ceil(math.log2(len(self._times))))
        times = np.pad(self._times, (0, length - len(self._times)), mode="edge")
        times = times.astype(jax.dtypes.canonicalize_dtype(times.dtype))
        if self._eps_power and id(params) not in self._known:
            values = np.asarray(self._eps_power(params, self._times))
            self._known = {
                id(params): (params, np.pad(values, (0, length - len(values)), mode="edge"))
            }  # keeps the id alive
        found = self._known[id(params)][1] if self._eps_power else None
        return times, np.int32(len(self._times) - 1), found, self._scales, self._others

    def _program(self, params, kind, given, at_once):
        known = (kind, at_once, *(leaf for row in jax.tree.leaves(given) for leaf in (row.shape, row.dtype)))
        if known not in self._compiled:
            program = self._jitted[kind].lower(params, *given).compile()
            analysis = program.memory_analysis()
            need = at_once * (analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
            free = free_bytes(jax.local_devices()[0])
            if need > free:
                raise OutOfMemory(f"{need / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
            self._compiled[known] = program
        return self._compiled[known]


def warn_of_broken(broken: int, num: int) -> None:
    """Tells of images that are not finite, if there are any."""
    if broken:
        logging.warning("%d of %d images are not finite; they are black where they are not", broken, num)


class OutOfMemory(Exception):
    """A batch needs more memory than is free."""


def free_bytes(device: jax.Device) -> int:
    """Memory of a device that is free now: its own, or the host's for a CPU."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available
