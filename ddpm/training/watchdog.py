"""The end of a process that waits for what does not come: of many, the others would wait for it without a word."""

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax

from ddpm.errors import check_at_least

T = TypeVar("T")
EXIT_CODE = 1


class Watchdog:
    """Ends this process, and says where each of its threads is, once it has waited too long for one thing.

    Args:
      seconds: of this process, so that clocks may jump, and a machine sleep; 0 for any.
    Raises:
      InputError: a negative number of them.
    """

    def __init__(self, seconds: int):
        check_at_least(0, **{"training.hang_after": seconds})
        self._seconds, self._waits, self._ended = seconds, None, threading.Event()

    def waits(self, what: str | None) -> None:
        """What this process waits for from now on; None for nothing that could hang."""
        self._waits = what and [what]  # a new one each time

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, each waited for; and then for the step they are for, but for the first, which is compiled."""
        iterator, step = iter(batches), None
        while True:
            self.waits("its data")
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.waits(None)
            self.waits(step)
            yield batch
            step = "a step, so for a device or another process"

    @contextlib.contextmanager
    def watching(self) -> Iterator[Callable[[str | None], None]]:
        """Watches as long as a block lasts."""
        if self._seconds:
            threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield self
        finally:
            self._ended.set()

    def _watch(self):
        before, ticks = None, 0
        while not self._ended.wait(1):
            now = self._waits
            ticks = ticks + 1 if now and now is before else 0
            before = now
            if ticks >= self._seconds:
                print(
                    f"error: process {jax.process_index()} of {jax.process_count()} has waited {ticks} s for {now[0]}, and ends "
                    "(training.hang_after). The same command goes on from the newest checkpoint. Its threads were here:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(EXIT_CODE)
