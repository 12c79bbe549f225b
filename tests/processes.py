"""Every process there is, built with its defaults: found, not listed."""

import inspect

import jax.numpy as jnp
import numpy as np

from ddpm import names
from ddpm.diffusion import continuous, predictions, processes, schedules
from ddpm.diffusion.model import Model
from ddpm.diffusion.prediction import check
from ddpm.errors import InputError

SCHEDULES = names.public(schedules)
CONTINUOUS = names.public(continuous)


def every_process():
    """name -> process; those that take a schedule with each schedule."""
    found = {}
    for name, make in names.public(processes).items():
        takes = inspect.signature(make).parameters
        if "params" in takes:  # learned, and not without noise at t = 0: test_continuous_bound.py
            continue
        if "alpha_bar" in takes:
            found |= {f"{name} {schedule}": make(SCHEDULES[schedule](1000)) for schedule in SCHEDULES}
        elif "function" in takes:
            found |= {f"{name} {schedule}": make(CONTINUOUS[schedule]) for schedule in CONTINUOUS}
        else:
            found[name] = make()
    return found


PROCESSES = every_process()
PREDICTIONS = {name: make() for name, make in names.public(predictions).items()}


def times_of(process, num):
    """`num` times over the whole of a process, first and last included; reals but for a table."""
    times = np.linspace(process.t_min, process.T, num)
    return np.round(times).astype(np.int32) if process.discrete else times


def eps_model(process, predict_eps):
    """The model of a function (x_t, t [batch]) -> eps_hat."""

    def network(x_t, t):
        return predict_eps(x_t, jnp.round(t).astype(jnp.int32) if process.discrete else t)

    told_t = predictions.eps()._replace(condition=lambda process, t: jnp.asarray(t, jnp.result_type(float)))
    return Model(process, told_t, network)


def possible(process, name):
    """Whether a prediction type says something of x_0 wherever sampling goes."""
    try:
        check(process, PREDICTIONS[name], name)
    except InputError:
        return False
    return True
