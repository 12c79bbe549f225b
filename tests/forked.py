"""A process that imported the command once, and forks for each call that a line of its input asks for."""

import json
import os
import sys
import traceback

import matplotlib.figure  # noqa: F401  the command imports it and the next when it needs them; here once for all calls
import tensorboardX.summary  # noqa: F401
from absl import app

from ddpm import main
from ddpm.tuning import tune


def call(arguments, environment, out, err):
    """Ends this process as the command would."""
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, code = ["ddpm.main", *arguments], 1
    try:
        tune()
        app.run(main.main, flags_parser=main._parse_flags)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            call(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
