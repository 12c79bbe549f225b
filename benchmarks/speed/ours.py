"""Our training step and our DDIM, made as the command `python -m ddpm.main` makes them.

OPTIONS in the environment is JSON of options of the configuration, {"model.unet.remat": true}; for REPLACED see replaced.py.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from networks import CLIP, DROPOUT, IMAGES, NETWORKS, RATE, fastest
from replaced import REPLACED

from ddpm import build, datasets, objective, samplers, sharding
from ddpm.data.images import Dataset
from ddpm.data.pipeline import Feed
from ddpm.objective import Diffusion
from ddpm.training import loop
from ddpm.training.state import State, init_state
from ddpm.tuning import tune
from experiments import cosine_cifar

PARTS = ("shapes", "trace for XLA", "parameters")  # of a start, one after the other, before the first step


class Work(NamedTuple):
    """What the command makes of a configuration before it trains; of the state the shapes."""

    config: ConfigDict
    data: Dataset
    diffusion: Diffusion
    tx: optax.GradientTransformation
    abstract: State
    feed: Feed
    step: Callable


def work(network: str, batch: int, dtype: str) -> Work:
    """The step of all contestants, on the devices there are."""
    options, size, channels = NETWORKS[network]
    config = cosine_cifar.get_config()
    config.training.batch_size = batch
    config.optimizer.update(learning_rate=RATE, warmup_steps=0, clip_norm=CLIP)
    config.model.unet.update(dropout=DROPOUT, dtype=dtype, **options)
    config.update_from_flattened_dict(json.loads(os.environ.get("OPTIONS", "{}")))
    data = Dataset(np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, channels), np.uint8))
    mesh = sharding.data_mesh()
    diffusion = objective.diffusion(config, data.facts.shape)
    tx = build.gradient_transformation(config)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
        jax.eval_shape(lambda key: init_state(diffusion.init(key), tx), objective.init_key(config)),
    )
    feed = datasets.batches(config, diffusion, data, split=sharding.split(mesh), replicated=sharding.replicated(mesh))
    return Work(config, data, diffusion, tx, abstract, feed, build.train_step(config, diffusion, tx))


class Ours:
    """What `worker.py` asks for; see there."""

    def __init__(self, network: str, batch: int, dtype: str, devices: int):
        os.environ.setdefault("DDPM_TRACED", "1")
        tune()
        done = [time.perf_counter()]
        self._compiled = []  # seconds that XLA took for each program
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: event.endswith("backend_compile_duration") and self._compiled.append(seconds)
        )
        sharding.split_cpu(devices)
        if "REPLACED" in os.environ:
            REPLACED[os.environ["REPLACED"]]()
        self._named = network, str(batch), dtype
        self._work = made = work(network, batch, dtype)
        done.append(time.perf_counter())
        replicated = sharding.replicated(sharding.data_mesh())
        self._scanned = made.config.training.steps_per_dispatch or (1 if jax.default_backend() == "cpu" else 10)
        self._steps = loop.Steps(
            made.step, made.feed, 0, made.abstract, self._scanned, {"config": made.config.to_dict()}
        )
        done.append(time.perf_counter())
        init = jax.jit(
            lambda key: init_state(made.diffusion.init(key), made.tx),
            out_shardings=replicated,
            compiler_options={"xla_backend_optimization_level": 0},
        )
        self._state, self._given = init(objective.init_key(made.config)), made.feed.start(0)
        jax.block_until_ready(self._state)
        done.append(time.perf_counter())
        self.parts = dict(zip(PARTS, np.diff(done).tolist(), strict=True))
        self._samplers = {}

    def train(self, steps: int) -> int:
        """Takes at least so many steps, in dispatches of several on an accelerator; says how many."""
        dispatches = -(-steps // self._scanned)
        for _ in range(dispatches):
            self._state, _ = self._steps(self._state, next(self._given), self._scanned)
        jax.block_until_ready(self._state)
        return dispatches * self._scanned

    def compiled(self) -> float:
        """Seconds that XLA took for the step, or to read it where it was kept; the programs compiled at the same time are small."""
        return max(self._compiled)

    def settle(self) -> None:
        """Waits for what is done beside the first steps."""
        self._steps.check()

    def sample(self, batch: int, steps: int) -> None:
        mesh = sharding.data_mesh(jax.local_devices()[:batch])
        if batch not in self._samplers:
            config, data = self._work.config, self._work.data
            config.sampler.update(name="ddim", num_steps=steps, batch_size=batch)
            self._samplers[batch] = samplers.sampler(config, self._work.diffusion, data.facts, mesh, lambda: data)
        params = jax.device_put(self._state.ema_params, sharding.replicated(mesh))
        self._samplers[batch](params, batch, seed=0)

    def facts(self) -> dict:
        """Parameters, seconds to compile the step, and what `operations.py` counts: on a CPU, as the compilers of other devices do not say."""
        count = [sys.executable, str(pathlib.Path(__file__).with_name("operations.py")), *self._named]
        counted = subprocess.run(
            count, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, check=True, text=True
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self._state.params))
        return {"parameters": parameters, "compiled": self.compiled(), "operations": json.loads(counted.stdout)}

    def matmul(self) -> float:
        """Operations a second of a large product of matrices."""
        side = 8192 if jax.default_backend() != "cpu" else 2048
        a = jax.random.normal(
            jax.random.key(0), (side, side), self._work.config.model.unet.dtype
        )  # zeros and ones are faster
        product = jax.jit(jnp.dot)
        return 2 * side**3 / fastest(lambda: product(a, a).block_until_ready())

    def peak(self) -> int:
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
