"""Any number of images from one compiled program of a fixed batch size."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from ddpm.data.pixels import to_pixels
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import Process
from ddpm.errors import InputError, check_at_least
from ddpm.rng import per_index, stream
from ddpm.sampling.denoise import denoiser
from ddpm.sampling.driver import Sampler, generate


class BatchedSampler:
    """Draws images; image i of a seed is the same alone, in any number of images, and on any number of devices.

    A batch is always of `batch_size`, filled up where fewer are asked, so that neither the number of images nor the seed
    compiles anew. If one batch does not fit the memory, half of it is tried.

    Args:
      model: params -> Model.
      algorithm: Process -> Sampler.
      times: from T down to 0, as of grids.py.
      nfe: network evaluations an image.
      shape: (height, width, channels).
      clip: clip x0_hat to [-1, 1].
      batch_size: images a batch, over all devices; rounded up to a multiple of their number.
      replicated, split: shardings of the parameters and of a batch.
    Raises:
      InputError: batch_size < 1.
    """

    def __init__(
        self,
        model: Callable[[Any], Model],
        algorithm: Callable[[Process], Sampler],
        times: np.ndarray,
        shape: tuple[int, int, int],
        *,
        nfe: int,
        clip: bool,
        batch_size: int,
        replicated: jax.sharding.Sharding,
        split: jax.sharding.Sharding,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size = {batch_size} must be at least 1.")
        self._devices = split.num_devices
        self._batch_size = -(-batch_size // self._devices) * self._devices
        self._compiled = {}
        self.nfe = nfe

        def images(params, key, indices, keep_path):
            bound = model(params)
            out = generate(
                algorithm(bound.process),
                denoiser(bound, clip=clip),
                jnp.asarray(times, jnp.result_type(times.dtype)),
                per_index(key, indices),
                shape,
                prior_scale=bound.process.prior_scale,
                keep_path=keep_path,
            )
            if keep_path:
                return to_pixels(out[1])
            return to_pixels(out), jnp.isfinite(out).all(axis=(1, 2, 3))

        path_split = jax.sharding.NamedSharding(split.mesh, jax.sharding.PartitionSpec(None, *split.spec))
        self._jitted = {
            keep_path: jax.jit(
                lambda params, key, indices, keep_path=keep_path: images(params, key, indices, keep_path),
                in_shardings=(replicated, replicated, split),
                out_shardings=path_split if keep_path else split,
            )
            for keep_path in (False, True)
        }

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
        for batch, finite in self.batches(params, num, seed=seed):
            images.append(batch)
            broken += int((~finite).sum())
            if progress:
                progress(sum(map(len, images)))
        if broken:
            logging.warning("%d of %d images are not finite; they are black where they are not", broken, num)
        return np.concatenate(images)

    def batches(self, params: Any, num: int, *, seed: int, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images first..num-1 of a seed, batch by batch: (uint8 [b, height, width, channels], whether each is finite [b])."""
        while first < num:
            try:
                images, finite = self._batch(params, seed, first, self._batch_size)
            except OutOfMemory as error:
                smaller = self._batch_size // 2 // self._devices * self._devices
                if not smaller:
                    raise InputError(f"not even one image a device fits the memory: {error}.") from error
                logging.warning(
                    "%d images at once do not fit the memory (%s): trying %d", self._batch_size, error, smaller
                )
                self._batch_size = smaller
                continue
            yield images[: num - first], finite[: num - first]
            first += len(images)

    def path(self, params: Any, num: int, *, seed: int) -> np.ndarray:
        """The x_t of images 0..num-1, from x_T to x_0: uint8 [num_steps + 1, num, height, width, channels].

        Raises:
          InputError: they do not fit the memory.
        """
        check_at_least(1, num=num)
        try:
            return self._batch(params, seed, 0, -(-num // self._devices) * self._devices, keep_path=True)[:, :num]
        except OutOfMemory as error:
            raise InputError(
                f"the paths of {num} images do not fit the memory ({error}); ask for fewer images or steps."
            ) from error

    def _batch(self, params, seed, first, size, keep_path=False):
        indices = np.arange(first, first + size, dtype=np.uint32)
        try:
            return jax.device_get(self._program(params, size, keep_path)(params, stream(seed, "sample"), indices))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemory(str(error).splitlines()[0]) from error

    def _program(self, params, size, keep_path):
        if (size, keep_path) not in self._compiled:
            key = jax.eval_shape(lambda: jax.random.key(0))
            indices = jax.ShapeDtypeStruct((size,), jnp.uint32)
            program = self._jitted[keep_path].lower(params, key, indices).compile()
            analysis = program.memory_analysis()
            need, free = analysis.temp_size_in_bytes + analysis.output_size_in_bytes, free_bytes(jax.local_devices()[0])
            if need > free:
                raise OutOfMemory(f"{need / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
            self._compiled[size, keep_path] = program
        return self._compiled[size, keep_path]


class OutOfMemory(Exception):
    """A batch needs more memory than is free."""


def free_bytes(device: jax.Device) -> int:
    """Memory of a device that is free now: its own, or the host's for a CPU."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available
