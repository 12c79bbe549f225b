"""What a process sets to start soon, run fast and hold little; what the environment says goes first."""

import ctypes
import functools
import gc
import os
import sys

import jax

from ddpm.cache import cache_directory

# Both are known to every jaxlib that pyproject.toml allows: XLA ends the process for one that it does not know.
YNNPACK = "--xla_cpu_experimental_ynn_fusion_type=individual_dot,reduce"  # "dot" makes one kernel of two products in a row, and a slow one
LITTLE_MEMORY = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"  # in an order of a step that holds less where a network is large
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # of glibc's malloc.h
ARENA = 1 << 27  # bytes; more than glibc reserves for a thread at once
ROOM = 1 << 28  # bytes; a step's workspaces and what Python takes meanwhile


def tune() -> None:
    """Programs are compiled once, garbage is collected seldom, memory is kept; a CPU computes with YNNPACK, at once and in little memory.

    Has to come before JAX computes anything. XLA_FLAGS in the environment replaces the options of XLA; LD_PRELOAD,
    GLIBC_TUNABLES or any MALLOC_... the settings of the allocator; JAX_CPU_ENABLE_ASYNC_DISPATCH that a CPU computes at once;
    JAX_COMPILATION_CACHE_DIR the place of what is compiled.
    """
    gc.set_threshold(100_000)  # collecting garbage takes a tenth of the tracing
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ.setdefault("XLA_FLAGS", f"{YNNPACK} {LITTLE_MEMORY}")
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        # A step that waits for another holds its memory by then: steps ahead of time multiply it, and none is sooner.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if not _chosen():
        keep_memory()


def keep_memory() -> None:
    """What is freed stays with the process, on Linux with glibc.

    A step on a CPU takes and frees gigabytes: given back to the kernel, each page is cleared again at the next step. So it still
    is with what threads other than the first take in pieces of more than 64 MB, as where a CPU is several devices: glibc maps those.
    """
    if mallopt := _of_libc("mallopt"):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
        mallopt(M_TOP_PAD, ARENA)  # nor from the arenas of threads
        mallopt(M_ARENA_MAX, 1 + (os.cpu_count() or 1))  # in one arena threads wait for each other; each holds memory


def give_back_memory() -> None:
    """What is free goes back to the kernel once: a compiler leaves half a gigabyte in pieces too small for a step's arrays."""
    if malloc_trim := _of_libc("malloc_trim"):
        malloc_trim(0)


@functools.cache
def keep_room() -> None:
    """What is small gets room of its own on a CPU, once, in this thread's arena; where the environment chooses the allocator, none.

    glibc takes the smallest hole that is large enough. A small piece in the hole that a step's gigabytes have left, where there is
    no smaller one, sends those of the next step elsewhere: from then on the process holds both.
    """
    malloc, realloc, free = map(_of_libc, ("malloc", "realloc", "free"))
    if malloc and jax.default_backend() == "cpu" and not _chosen():
        malloc.restype = realloc.restype = ctypes.c_void_p
        room, wall = (ctypes.c_void_p(malloc(ctypes.c_size_t(ROOM))) for _ in range(2))
        realloc(wall, ctypes.c_size_t(1))  # what stays of it keeps the room from becoming one with what is free behind
        free(room)


def _chosen():
    return any(name in ("LD_PRELOAD", "GLIBC_TUNABLES") or name.startswith("MALLOC_") for name in os.environ)


def _of_libc(name):
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
