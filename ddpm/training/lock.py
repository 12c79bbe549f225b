"""One command at a time trains in a workdir: two would write over each other's checkpoints and figures."""

import contextlib
import fcntl
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

from ddpm.errors import MachineError


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a workdir as long as a block lasts; the kernel lets go of it with this process, however that ends.

    Of a machine that dies a file server may take a minute to let go.

    Raises:
      MachineError: another command trains there.
    """
    with (workdir / ".training").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise MachineError(
                f"{file.read() or 'another process'} trains in {workdir}: wait for its end, or give another --workdir."
            ) from error
        except OSError as error:  # a file system without locks
            logging.warning("%s cannot be locked (%s): let no other command train in it", workdir, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
