"""The start of a run on several processes, as SLURM, Open MPI, Kubernetes or a TPU start them; nothing is scheduled here."""

import contextlib
import importlib.util
import logging
import os
import pathlib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping

import jax

from ddpm import sharding
from ddpm.errors import InputError, MachineError, first_line

TRIPLE = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")
EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again
THREADS_LEFT = 10
HEARTBEAT = 30  # seconds without a sign of a process after which the others end


def start(expected: int | None) -> bool:
    """Joins the processes that were started together, if there are any; says whether this is the first.

    Args:
      expected: processes that there must be; None for any number.
    Raises:
      InputError: another number of them, or variables of the environment that do not go together.
    """
    arguments = how_started(os.environ)
    if arguments is None and expected in (None, 1):
        return True
    if arguments is not None:
        try:
            jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT)
        except (RuntimeError, ValueError) as error:
            raise MachineError(f"the processes of this run did not find each other: {first_line(error)}") from error
    if expected is not None and jax.process_count() != expected:
        raise InputError(
            f"--expect_processes {expected}, but this is one of {jax.process_count()}: start it by srun (not in the body of a "
            f"batch script alone), mpirun, or with {', '.join(TRIPLE)}."
        )
    if jax.process_count() > 1:
        sharding.wait_for_all("the start")  # later ones may wait long, but the first of gloo may not
    here, everywhere = jax.local_device_count(), jax.device_count()
    logging.warning("process %d of %d, %d of %d devices", jax.process_index(), jax.process_count(), here, everywhere)
    if jax.process_index():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # standard output: what all have come to is said once
    return jax.process_index() == 0


@contextlib.contextmanager
def leaving() -> Iterator[Callable[[int], int]]:
    """Gives a function that all processes end by, with their exit codes.

    Those that did what was asked of them wait for each other; one alone THREADS_LEFT seconds for its threads, of which one
    may hang in a read of data that nobody needs. One that failed leaves at once, whatever its threads still wait
    for: Orbax's, after a write that failed, wait ten minutes. The other processes miss its heartbeat.
    """

    def leave(code):
        if code not in (0, EXIT_CODE):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        if jax.distributed.is_initialized():
            # A launcher that sees one process end with 75 sends SIGTERM to the others, whose 75 it is to see as well.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sharding.wait_for_all("the end")
            jax.distributed.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        late = threading.Timer(THREADS_LEFT, os._exit, (code,))
        late.daemon = True
        late.start()
        return code

    def hook(*error):
        traceback.print_exception(error[1])
        if jax.distributed.is_initialized() and isinstance(error[1], jax.errors.JaxRuntimeError):
            print(
                f"error: process {jax.process_index()} of {jax.process_count()} ends, since another is gone or does not answer; "
                "the same command goes on from the newest checkpoint.",
                file=sys.stderr,
            )
        leave(1)

    try:
        yield leave
    except Exception as error:
        if jax.distributed.is_initialized():
            hook(type(error), error)
        sys.excepthook = hook  # when no debugger took it
        raise


def how_started(environment: Mapping[str, str]) -> dict | None:
    """What `jax.distributed.initialize` is to be told besides what it finds itself; None for a process of its own.

    Raises:
      InputError: variables that do not go together.
    """
    address, count, number = (environment.get(name) for name in TRIPLE)
    if count is not None or number is not None:
        if None in (address, count, number) or not (
            count.isdecimal() and number.isdecimal() and int(number) < int(count)
        ):
            values = ", ".join(f"{name} = {environment.get(name)}" for name in TRIPLE)
            raise InputError(f"{values}: all three are needed, and the number of a process is below their count.")
        own = {"coordinator_address": address, "num_processes": int(count), "process_id": int(number)}
        return own if int(count) > 1 else None
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environment:  # Open MPI 5, which JAX does not know
            raise InputError(
                f"Open MPI 5 says too little: give {TRIPLE[0]} = HOST:PORT of the first, {TRIPLE[1]} and {TRIPLE[2]}."
            )
        tasks, task = (int(environment[f"OMPI_COMM_WORLD_LOCAL_{name}"]) for name in ("SIZE", "RANK"))
        return _devices(environment, tasks, task)
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _devices(environment, _tasks_here(environment), int(environment["SLURM_LOCALID"]))
    tpu = any(pathlib.Path(device).exists() for device in TPU_DEVICES) and importlib.util.find_spec("libtpu")
    return {} if tpu and environment.get("JAX_PLATFORMS", "").partition(",")[0] != "cpu" else None


def _tasks_here(environment):
    # Such as 4(x2),3: four on each of the first two nodes, three on the last.
    nodes = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    each = [int(tasks) for tasks, times in nodes for _ in range(int(times or 1))]
    return each[min(int(environment.get("SLURM_NODEID", "0")), len(each) - 1)]


def _devices(environment, tasks, task):
    # JAX takes one device for each task, of the task's number: wrong where a task sees its own alone, or is to have several.
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if "JAX_LOCAL_DEVICE_IDS" in environment or not visible:
        return {}
    count = len(visible.split(","))
    if count == 1:
        return {"local_device_ids": [0]}
    if count % tasks:
        raise InputError(
            f"{tasks} tasks on this node cannot share {count} GPUs evenly: start one a GPU, or one a node."
        )
    share = count // tasks
    return {"local_device_ids": list(range(task * share, (task + 1) * share))}
