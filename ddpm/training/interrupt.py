"""SIGTERM and Ctrl-C: finish the step, save, leave; several processes at the same step."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
    """Raised by what takes long, such as sampling, to come back to the loop that saves and leaves."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether SIGTERM or SIGINT has come; a SIGINT after that ends the process at once.

    Of several processes SIGTERM to any is told to all in the same call, which they have to make as often as each other.
    """
    if jax.process_count() > 1:
        yield _told_together()
        return
    seen = []

    def handle(number, frame):
        if number == signal.SIGINT and seen:
            os._exit(128 + number)
        seen.append(number)
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving and leaving; Ctrl-C from now on leaves at once\n".encode())

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told_together():
    calls, told = 0, False

    def interrupted():
        nonlocal calls, told
        calls += 1  # JAX says it once, at a count that all have yet to come to
        told = told or multihost_utils.reached_preemption_sync_point(calls)
        return told

    return interrupted
