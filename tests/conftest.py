"""Strict JAX: eight fake devices, no silent rank promotion; shapes are checked by jaxtyping (pyproject.toml)."""

import atexit
import functools
import gc
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import urllib.request

import jax
import pytest

REPO = pathlib.Path(__file__).parents[1]
CACHE = REPO / ".cache" / "jax"

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)  # of the commands that tests start
os.environ["XDG_CACHE_HOME"] = str(CACHE.parent)  # and what they keep beside it
jax.config.update("jax_disable_most_optimizations", True)  # the tests compile much and compute little
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Less to compile: a quarter by the first, some by the second, as pieces pay only where cores have nothing else to do.
LIGHT = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{LIGHT} {os.environ.get('XLA_FLAGS', '')}"
gc.set_threshold(100_000)  # as the command does
os.environ["JAX_PLATFORMS"] = "cpu"


def pytest_xdist_auto_num_workers():
    """One more than there are cores, as some wait for processes that they start; with four, memory is what is scarce."""
    return min(4, 1 + os.cpu_count())


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)  # what takes seconds comes first


@pytest.fixture(autouse=True, scope="module")
def unburdened():
    """What the tests of other files left is neither kept compiled nor looked through by the garbage collector."""
    jax.clear_caches()
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Double precision, for exact formulas."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optimised():
    """Programs that compute much."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def offline(monkeypatch):
    """No connection; returns the addresses that were tried."""
    tried = []

    def refuse(address, *_, **__):
        tried.append(address)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    return tried


@pytest.fixture
def tiny():
    """The digits experiment with a network that compiles in seconds."""
    from experiments import digits

    config = digits.get_config()
    config.model.unet.update(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    config.optimizer.update(warmup_steps=2)
    config.training.update(batch_size=16, num_steps=6, log_every=2, sample_every=0, evaluate_every=0, save_every=3)
    config.evaluation.update(num=24, num_steps=3, num_reference=40)
    config.sampler.update(num_steps=5, batch_size=8)
    return config


TINY = [  # a run of the command that takes seconds
    "--config=experiments/digits.py",
    "--config.model.unet.channels=8",
    "--config.model.unet.channel_mult=(1,)",
    "--config.model.unet.attention_resolutions=()",
    "--config.training.batch_size=16",
    "--config.training.num_steps=60",
    "--config.training.log_every=5",
    "--config.training.save_every=5",
    "--config.training.sample_every=0",
    "--config.training.evaluate_every=0",
    "--config.evaluation.num=40",
    "--config.evaluation.num_steps=3",
    "--config.evaluation.num_reference=100",
    "--config.optimizer.warmup_steps=5",
    "--config.sampler.num_steps=5",
    "--config.sampler.batch_size=8",
]


def start(*arguments, devices=1, environment=None, **options):
    """Starts `python -m ddpm.main` as a user would, on so many fake devices, with more in its environment."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(REPO)} | (environment or {})
    command = [sys.executable, "-m", "ddpm.main", *map(str, arguments)]
    options = dict(cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE) | options
    return subprocess.Popen(command, env=environment, text=True, **options)


def run(*arguments, **options):
    """(exit code, stdout, stderr) of the command."""
    if options:
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err
    server = _server()
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
        call = dict(arguments=[*map(str, arguments)], environment=environment, out=out.name, err=err.name)
        print(json.dumps(call), file=server.stdin, flush=True)
        return int(server.stdout.readline()), out.read(), err.read()


@functools.cache
def _server():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(REPO)}
    command = [sys.executable, "tests/forked.py"]
    server = subprocess.Popen(
        command, cwd=REPO, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(server.communicate)  # whose end of input is the server's end
    return server
