"""One contestant in a process of its own: reads orders, a line of JSON each, and answers each with a line.

{"do": "train", "steps": 3}, {"do": "sample", "batch": 16, "steps": 5} -> {"seconds": 1.2}, and steps taken; {"do": "facts"}, {"do": "matmul"},
{"do": "peak"} and, of ours, {"do": "compiled"}, {"do": "parts"} (of its start) -> what they are named. It says {"ready": ...} once it has taken its first step.
"""

import argparse
import json
import os
import pathlib
import sys
import time


def main() -> None:
    """Makes the contestant and obeys."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("who")
    parser.add_argument("network")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--devices", type=int, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed goes to stderr
    if arguments.who == "ours":
        from ours import Ours

        imports = time.perf_counter() - began
        made = Ours(arguments.network, arguments.batch, arguments.dtype, arguments.devices)
    else:
        from theirs import Theirs

        made = Theirs(arguments.who, arguments.network, arguments.batch, arguments.dtype)
    before = time.perf_counter()
    made.train(1)
    first = time.perf_counter() - before
    start = made.peak() or most_resident()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # counts the most from here
    print(json.dumps({"ready": True}), file=answers, flush=True)
    if arguments.who == "ours":
        xla = made.compiled()
        made.settle()
    for line in sys.stdin:
        order = json.loads(line)
        answer, began = {}, time.perf_counter()
        match order["do"]:
            case "train":
                answer = {"steps": made.train(order["steps"])}
            case "sample":
                made.sample(order["batch"], order["steps"])
            case "facts":
                answer = made.facts()
            case "compiled":
                answer = {"compiled": made.compiled()}
            case "parts":
                answer = {"imports": imports} | made.parts | {"first step": first, "XLA": xla}
            case "matmul":
                answer = {"matmul": made.matmul()}
            case "peak":
                answer = {"start": start, "resident": most_resident(), "device": made.peak()}
        print(json.dumps(answer | {"seconds": time.perf_counter() - began}), file=answers, flush=True)


def most_resident() -> int:
    """Bytes of memory that the process has had at most since that was last forgotten."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
