"""A process that waits for what does not come ends, and says what for."""

import itertools
import subprocess
import sys
import textwrap

import pytest
from conftest import REPO

from ddpm.errors import InputError
from ddpm.training.watchdog import Watchdog


def ends(script):
    """(exit code, standard error) of a script that may wait a second."""
    head = "import itertools, time\nfrom ddpm.training.watchdog import Watchdog\n"
    body = f"with Watchdog(1).watching() as watchdog:\n{textwrap.indent(textwrap.dedent(script), '    ')}"
    done = subprocess.run([sys.executable, "-c", head + body], cwd=REPO, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_data_that_do_not_come_are_named():
    code, err = ends("next(watchdog.over(time.sleep(30) for _ in range(1)))")
    assert code == 1 and err.startswith(
        "error: process 0 of 1 has waited 1 s for its data, and ends (training.hang_aft"
    )
    assert "in <genexpr>" in err


def test_a_step_that_does_not_end_is_named_but_for_the_first_which_compiles():
    code, err = ends("for n in watchdog.over(itertools.count()):\n    time.sleep(3 if n < 1 else 30)")
    assert code == 1 and "has waited 1 s for a step, so for a device or another process, and ends" in err


def test_what_goes_on_or_is_not_waited_for_may_take_long():
    script = "for _ in watchdog.over(range(8)):\n    time.sleep(0.5)\nwatchdog.waits(None)\ntime.sleep(4)"
    assert ends(script) == (0, "")


def test_batches_are_passed_on():
    assert [*Watchdog(5).over(range(4))] == [0, 1, 2, 3]
    assert [*itertools.islice(Watchdog(0).over(itertools.count()), 3)] == [0, 1, 2]
    with pytest.raises(InputError, match="hang_after"):
        Watchdog(-1)
