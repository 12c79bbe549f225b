"""Our training step and our DDIM, made as the command `python -m ddpm.main` makes them."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from networks import CLIP, DROPOUT, IMAGES, NETWORKS, RATE, fastest

from ddpm import build, datasets, objective, samplers, sharding
from ddpm.data.images import Dataset
from ddpm.training import loop
from ddpm.training.state import init_state
from ddpm.tuning import tune
from experiments import cosine_cifar


class Ours:
    """What `worker.py` asks for; see there."""

    def __init__(self, network: str, batch: int, dtype: str, devices: int):
        tune()
        self._compiled = []  # seconds that XLA took for each program
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: event.endswith("backend_compile_duration") and self._compiled.append(seconds)
        )
        sharding.split_cpu(devices)
        options, size, channels = NETWORKS[network]
        self._config = config = cosine_cifar.get_config()
        config.training.batch_size = batch
        config.optimizer.update(learning_rate=RATE, warmup_steps=0, clip_norm=CLIP)
        config.model.unet.update(dropout=DROPOUT, dtype=dtype, **options)
        self._data = data = Dataset(np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, channels), np.uint8))
        mesh = sharding.data_mesh()
        self._diffusion = diffusion = objective.diffusion(config, data.facts.shape)
        self._tx = tx = build.gradient_transformation(config)
        self._abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
            jax.eval_shape(lambda key: init_state(diffusion.init(key), tx), objective.init_key(config)),
        )
        self._feed = datasets.batches(
            config, diffusion, data, split=sharding.split(mesh), replicated=sharding.replicated(mesh)
        )
        self._scanned = 1 if jax.default_backend() == "cpu" else 10
        self._step = build.train_step(config, diffusion, tx)
        self._steps = loop.Steps(self._step, self._feed, 0, self._abstract, self._scanned)
        init = jax.jit(
            lambda key: init_state(diffusion.init(key), tx),
            out_shardings=sharding.replicated(mesh),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        self._state, self._given = init(objective.init_key(config)), self._feed.start(0)
        self._samplers = {}

    def train(self, steps: int) -> int:
        """Takes at least so many steps, in dispatches of several on an accelerator; says how many."""
        dispatches = -(-steps // self._scanned)
        for _ in range(dispatches):
            self._state, _ = self._steps(self._state, next(self._given), self._scanned)
        jax.block_until_ready(self._state)
        return dispatches * self._scanned

    def sample(self, batch: int, steps: int) -> None:
        if batch not in self._samplers:
            self._config.sampler.update(name="ddim", num_steps=steps, batch_size=batch)
            mesh = sharding.data_mesh(jax.local_devices()[:batch])
            made = samplers.sampler(self._config, self._diffusion, self._data.facts, mesh, lambda: self._data)
            self._samplers[batch] = made, jax.device_put(self._state.ema_params, sharding.replicated(mesh))
        sampler, params = self._samplers[batch]
        sampler(params, batch, seed=0)

    def facts(self) -> dict:
        """Parameters, seconds to compile the step; operations of a step and of an evaluation, an image, as XLA counts them where convolutions are sums."""
        compiled = max(self._compiled)  # the step; others are compiled at the same time
        os.environ["DDPM_WINOGRAD"] = "0"

        def one(state, given):
            return self._step(state, self._feed.draw(given, state.batch), jax.random.key(0))

        def evaluation(params, x, t):
            return self._diffusion.model(params).raw(x, t)

        def operations(function, *arguments):
            plain = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
            with jax.default_device(jax.devices("cpu")[0]):  # the GPU's compiler does not say
                return jax.jit(function).lower(*plain).cost_analysis()["flops"]

        x, t = jnp.zeros((1, *self._data.facts.shape)), jnp.zeros(1, int)
        return {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._state.params)),
            "compiled": compiled,
            "operations": {
                "train": operations(one, self._abstract, self._feed.given) / self._config.training.batch_size,
                "sample": operations(evaluation, self._state.params, x, t),
            },
        }

    def matmul(self) -> float:
        """Operations a second of a large product of matrices."""
        side = 8192 if jax.default_backend() != "cpu" else 2048
        a = jax.random.normal(jax.random.key(0), (side, side), self._config.model.unet.dtype)  # zeros and ones are faster
        product = jax.jit(jnp.dot)
        return 2 * side**3 / fastest(lambda: product(a, a).block_until_ready())

    def peak(self) -> int:
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
