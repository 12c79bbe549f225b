"""Every process there is, built with its defaults: found, not listed."""

import inspect

from ddpm import build
from ddpm.diffusion import continuous, processes, schedules

SCHEDULES = build.public(schedules)
CONTINUOUS = build.public(continuous)


def every_process():
    """name -> process; those that take a schedule with each schedule."""
    found = {}
    for name, make in build.public(processes).items():
        takes = inspect.signature(make).parameters
        if "alpha_bar" in takes:
            found |= {f"{name} {schedule}": make(SCHEDULES[schedule](1000)) for schedule in SCHEDULES}
        elif "function" in takes:
            found |= {f"{name} {schedule}": make(CONTINUOUS[schedule]) for schedule in CONTINUOUS}
        else:
            found[name] = make()
    return found


PROCESSES = every_process()


def times_of(process, num):
    """`num` times over the whole of a process, first and last included; reals but for a table."""
    import numpy as np

    times = np.linspace(process.t_min, process.T, num)
    return np.round(times).astype(np.int32) if process.discrete else times
