"""What Python, Orbax and TensorStore raise where checkpoints are written and read, told apart."""

import errno
import re
from collections.abc import Iterator

OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE)
KINDS = (MemoryError, PermissionError, ConnectionError, TimeoutError)
# Of TensorStore, which raises ValueError: by its words, and by the numbers of the system's errors.
WORDS = re.compile(
    "RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|ABORTED|CANCELLED"
    rf"|OS error ({'|'.join(str(int(number)) for number in (*OF_THE_MACHINE, errno.EACCES, errno.ETIMEDOUT))})\b"
)


def is_full(error: BaseException) -> bool:
    """Whether the disk has no space left."""
    text = " ".join(str(e) for e in _chain(error))
    no_space = any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in _chain(error))
    return no_space or "No space left" in text or "RESOURCE_EXHAUSTED" in text


def is_of_the_machine(error: BaseException) -> bool:
    """Whether it is no fault of a checkpoint, so no reason to set it aside."""
    return any(
        isinstance(e, KINDS) or (isinstance(e, OSError) and e.errno in OF_THE_MACHINE) or WORDS.search(str(e))
        for e in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
