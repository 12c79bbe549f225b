"""Injects each fault into runs at random moments, starts them again, and looks at what came out.

python benchmarks/faults/measure.py [--times 20] [--only NAME ...] [--jobs 2] [--out FILE]

A run of one process has 40 steps and a checkpoint every 8, one of two 24 and every 6. The moment is a random step, and up to 50 ms. Medians, and the largest in brackets.
Steps lost: done before, and done again. Ends after: seconds from the fault to the end of all processes, by themselves. Recovery:
seconds from the fault until the same command is where the run was. Same bits: runs that ended with every bit of the state of one to which
nothing happened; a run that does not is either broken silently, or named below as lost.
"""

import argparse
import collections
import functools
import json
import pathlib
import random
import re
import statistics
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import faults
from job import Lost

ATTEMPTS = 3  # after which a run that ends early is lost


def main() -> None:
    """Measures, prints a row for each fault as it is done, and the table."""
    known = {
        name: made
        for name, made in vars(faults).items()
        if isinstance(made, type) and issubclass(made, faults.Fault) and made.__doc__ and made is not faults.Fault
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=known, default=[*known])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="file for all that was measured")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(arguments.jobs) as threads:
        peers = Peers(pathlib.Path(place))
        for name in arguments.only:
            if missing := getattr(known[name], "needs", None):
                print(f"{name}: not injected, needs {missing}", flush=True)
                continue
            one = functools.partial(injected, known[name], pathlib.Path(place), peers, arguments.seed)
            found[name] = list(threads.map(one, range(arguments.times)))
            print(row(known[name], found[name]), flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n" + "\n".join(table({known[name]: rows for name, rows in found.items()})))


class Peers:
    """Runs to which nothing happened, each made once."""

    def __init__(self, place: pathlib.Path):
        self._place, self._made, self._lock = place, {}, threading.Lock()

    def sums(self, name: str, make) -> dict:
        """The checksums at the end of the run that `make` gives."""
        with self._lock:
            if name not in self._made:
                job = make(self._place / f"peer{len(self._made)}")
                job.start()
                if any(job.ends()):
                    raise Lost(f"the run to which nothing happened: {job.said()}")
                self._made[name] = job.sums()
            return self._made[name]


def injected(made: type, place: pathlib.Path, peers: Peers, seed: int, number: int) -> dict:
    """What became of one run."""
    chance = random.Random(f"{made.__name__} {seed} {number}")
    fault = made(place / made.__name__ / str(number), chance)
    job, found = fault.job(), {"number": number}
    try:
        job.start()
        job.reaches(getattr(fault, "moment", None) or chance.randrange(1, job.num_steps - 5))
        time.sleep(chance.uniform(0, 0.05))
        began = time.monotonic()
        codes = job.ends(fault.happens(job) or [])
        reached = job.step()
        found |= {"codes": codes, "said": job.said() if any(codes) else "", "ends": time.monotonic() - began}
        for attempt in range(ATTEMPTS):
            if not any(codes):
                break
            fault.mend()
            job.start()
            if not attempt:
                found["lost"] = reached - job.resumes()
                job.reaches(reached)
                found["recovery"] = time.monotonic() - began
            codes = job.ends()
        if any(codes):
            raise Lost(f"exit codes {codes} of start {job.attempt}: {job.said()}")
        found |= {"same": job.sums() == peers.sums(*fault.peer(job)), "skipped": len(job.skipped())}
    except Lost as error:
        found["failed"] = str(error)
    finally:
        job.kill()
        fault.end()
    return found


def table(found: dict[type, list[dict]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| fault | times | exit codes, and what is said | steps lost | ends after, s | recovery, s | skipped | same bits |"
    yield "|---|---:|---|---:|---:|---:|---:|---:|"
    for fault, rows in found.items():
        yield row(fault, rows)


def row(fault: type, rows: list[dict]) -> str:
    """A line of Markdown: medians, and the largest in brackets."""
    failed = [r["failed"] for r in rows if "failed" in r]
    whole = [r for r in rows if "same" in r]
    ended = [r for r in whole if "lost" in r]
    codes = sorted({code for r in whole for code in r["codes"]})
    said = collections.Counter(re.sub(r"\d+", "N", r["said"]) for r in ended).most_common(1)
    words = " ".join(map(str, codes)) + (f": {textwrap.shorten(said[0][0], 130)}" if said else ": the run goes on")
    cells = [
        fault.__doc__,
        len(rows),
        words.replace("|", "\\|"),
        spread([r.get("lost", 0) for r in whole], "{:.0f}"),
        spread([r["ends"] for r in ended], "{:.1f}"),
        spread([r["recovery"] for r in ended], "{:.1f}"),
        spread([r["skipped"] for r in whole], "{:.0f}"),
        f"{sum(r['same'] for r in whole)} of {len(rows)}",
    ]
    return f"| {' | '.join(map(str, cells))} |" + "".join(f"\n  lost: {text}" for text in failed)


def spread(values: list, form: str) -> str:
    """The median, and the largest."""
    return f"{form.format(statistics.median(values))} ({form.format(max(values))})" if values else ""


if __name__ == "__main__":
    main()
