"""What the command sets for speed changes no result, and leaves alone what the environment sets."""

import json
import os
import resource
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import REPO, TINY, start

from ddpm.training import loop
from ddpm.tuning import LITTLE_MEMORY, YNNPACK


def in_a_process(code, **environment):
    """What code prints in a process that was told nothing of XLA or the allocator, but for this environment."""
    told = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS", "LD_PRELOAD", "GLIBC_TUNABLES")
    kept = {k: v for k, v in os.environ.items() if k not in told and not k.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=kept | environment, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


SAID = "import os, jax; from ddpm.tuning import tune; tune(); print(os.environ['XLA_FLAGS'], jax.config.jax_compilation_cache_dir)"


def test_the_environment_goes_first(tmp_path):
    assert in_a_process(SAID, XDG_CACHE_HOME=str(tmp_path)) == f"{YNNPACK} {LITTLE_MEMORY} {tmp_path}/ddpm/jax"
    given = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false", "JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    assert in_a_process(SAID, **given) == "--xla_cpu_enable_fast_math=false /elsewhere"


AS_IT_IS = {"MALLOC_PERTURB_": "0"}  # which is so anyway: the user set the allocator, and all is as glibc has it
FAULTS = """
import resource
from ddpm.tuning import tune
tune()
for _ in range(20):
    b"x" * 80_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an allocator of Linux")
def test_memory_is_kept_and_an_allocator_of_the_user_is_left_alone():
    pages = 80_000_000 // resource.getpagesize()
    kept, given_back = int(in_a_process(FAULTS)), int(in_a_process(FAULTS, **AS_IT_IS))
    assert given_back - kept > 10 * pages


FAULTS_OF_A_THREAD = """
import resource, threading
from ddpm.tuning import tune
tune()
def work():
    first = b"x" * 40_000_000  # fills what glibc reserves for a thread at first
    for _ in range(40):
        b"x" * 40_000_000
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an allocator of Linux")
def test_memory_of_a_thread_is_kept():
    pages = 40_000_000 // resource.getpagesize()
    kept, given_back = (
        int(in_a_process(FAULTS_OF_A_THREAD)),
        int(in_a_process(FAULTS_OF_A_THREAD, **AS_IT_IS)),
    )
    assert given_back - kept > 30 * pages


IN_A_ROW = """
import jax
from ddpm.tuning import tune
tune()
x = jax.numpy.ones((300, 300))
print(jax.jit(lambda x: x @ x @ x).lower(x).compile().as_text().count("__ynn_fusion"))
"""


def test_two_products_in_a_row_stay_two():
    assert in_a_process(IN_A_ROW) == "2"


AHEAD = """
import jax
from ddpm.tuning import tune
tune()
x = jax.numpy.ones((3000, 3000))
product = jax.jit(lambda x: x @ x @ x).lower(x).compile()
print(product(x).is_ready())
"""


def test_a_cpu_computes_at_once_so_that_no_two_steps_hold_memory():
    assert in_a_process(AHEAD) == "True"
    assert in_a_process(AHEAD, JAX_CPU_ENABLE_ASYNC_DISPATCH="1") == "False"


LEFT = """
import resource
from ddpm.tuning import give_back_memory, keep_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
keep_memory()
pieces = [b"x" * 100_000 for _ in range(2000)]
apart = pieces[::20]  # between which nothing joins
del pieces
held = resident()
give_back_memory()
print(held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an allocator of Linux")
def test_what_a_compiler_has_left_is_given_back():
    assert int(in_a_process(LEFT)) > 150_000_000


def test_losses_are_those_of_untuned_programs(tmp_path):
    found = []
    for name, flags in (("tuned", YNNPACK), ("untuned", "--xla_cpu_experimental_ynn_fusion_type=")):
        arguments = [
            *TINY,
            "--config.model.unet.channels=32",
            "--config.training.num_steps=20",
            f"--workdir={tmp_path / name}",
        ]
        process = start(*arguments, environment={"XLA_FLAGS": flags})
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(row)["loss"] for row in rows])
    assert found[0] != found[1]  # other programs
    np.testing.assert_allclose(*found, rtol=1e-5)


BESIDE = """
from ddpm.tuning import keep_memory, keep_room
keep_memory()
if {room}:
    keep_room()
step = b"x" * 400_000_000
behind = b"x" * 18_000_000
del step
within = b"x" * 18_000_000
step = b"x" * 400_000_000
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an allocator of Linux")
def test_a_small_piece_does_not_send_the_next_step_elsewhere():
    scattered, kept = (1024 * int(in_a_process(BESIDE.format(room=room))) for room in (False, True))
    assert scattered - kept > 350_000_000


def test_the_plan_of_a_step_goes_back_to_the_kernel_once_its_size_is_read(monkeypatch):
    said = []
    plan = types.SimpleNamespace(
        memory_analysis=lambda: said.append("read") or types.SimpleNamespace(temp_size_in_bytes=3)
    )
    monkeypatch.setattr(loop.Steps, "compiled", lambda self: plan)
    monkeypatch.setattr(loop, "give_back_memory", lambda: said.append("given back"))
    assert object.__new__(loop.Steps).activations() == 3 and said == ["read", "given back"]
