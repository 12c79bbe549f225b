"""SIGTERM and Ctrl-C: finish the step, save, leave."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again


class Interrupted(Exception):
    """Raised by what takes long, such as sampling, to come back to the loop that saves and leaves."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether SIGTERM or SIGINT has come; a SIGINT after that ends the process at once."""
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
