"""Orbax reports a failure by hundreds of lines from its threads; what failed is raised and told in one line elsewhere."""

import logging
import sys


def _is_ours(log: logging.LogRecord) -> bool:
    text = log.pathname + log.getMessage()
    return log.levelno < logging.WARNING or not any(name in text for name in ("orbax", "tensorstore", "OCDBT"))


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_is_ours)


def _without_orphans(unraisable, before=sys.unraisablehook):
    # Of a read or write that failed: the others that were under way find its event loop gone.
    if str(unraisable.exc_value) != "Event loop is closed":
        before(unraisable)


sys.unraisablehook = _without_orphans
