"""Speed of ours and of its peers, in turns: training steps, sampling, memory, start-up.

make bench, or python benchmarks/speed/measure.py [--networks small,cifar10] [--peers diffusers,...] [--batch 16]
  [--dtype float32] [--steps 3] [--rounds 5] [--draws 1,16,64] [--together] [--out results]

Each contestant is a process of its own, which waits while another has its turn. All take the same step, with the gradient
clipped, Adam, EMA and dropout, on images in memory, and draw with the same number of steps of DDIM; of each round there is a
ratio, whose median is printed. A peer whose code is read from a path is left out where its variable (GUIDED_DIFFUSION, EDM) is
not set, and denoising-diffusion-pytorch where it is not installed. The share of the peak is of the operations of each network, as XLA counts
ours, which is also diffusers', and PyTorch those of others (a fifteenth more: with the zeros around an image), to those of a product of matrices on one device. Networks
are not all the same, so ours is also compared with the peer that does the most operations a second. Each is started cold once, and warm in each
round, while no other runs; --together starts all at once, and once, in less time and without figures of that (on a GPU each then chooses its
kernels while others start).
"""

import argparse
import concurrent.futures
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from networks import NETWORKS, PEERS, check_peers_installed, names, positive, positives
from tables import ddim_steps, plot, table

HERE = pathlib.Path(__file__).parent


class Ended(SystemExit):
    """A contestant has left, as for want of memory; with the end of what it said."""


class Contestant:
    """A process of worker.py.

    Args:
      arguments: with its batch, dtype and devices.
      cache: folder of what it compiles.
      environment: of the process, beside what there is.
    """

    def __init__(self, who: str, network: str, arguments: argparse.Namespace, cache: pathlib.Path, **environment: str):
        self.who, began = who, time.perf_counter()
        options = {name: getattr(arguments, name) for name in ("batch", "dtype", "devices")}
        caches = {"JAX_COMPILATION_CACHE_DIR": str(cache / "jax"), "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch")}
        caches["XDG_CACHE_HOME"] = str(cache)
        beside = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # others hold memory of the same device
        there = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(arguments.devices)))).split(",")
        cpu = os.environ.get("JAX_PLATFORMS") == "cpu"
        beside["CUDA_VISIBLE_DEVICES"] = "" if cpu else ",".join(there[: arguments.devices])
        path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [
                sys.executable,
                HERE / "worker.py",
                who,
                network,
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            env=os.environ | caches | beside | {"PYTHONPATH": path} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(cache / f"{who}.log").open("w"),
            text=True,
        )
        self._log = cache / f"{who}.log"
        self._answer()
        self.first = time.perf_counter() - began
        self("peak")  # which it answers once it is idle

    def __call__(self, do: str, **order) -> dict:
        """What it answers an order."""
        with contextlib.suppress(BrokenPipeError):  # there is no answer then
            self._process.stdin.write(json.dumps({"do": do} | order) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise Ended(f"{self.who} ended:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=names(NETWORKS), default="small,cifar10")
    parser.add_argument("--peers", type=names(PEERS), default=",".join(peer for peer, there in PEERS.items() if there))
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--steps", type=positive, default=3, help="of training, a turn; more where ours takes them at once"
    )
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--draws", type=positives, default="1,16,64", help="images drawn at once; '' to draw none")
    parser.add_argument("--devices", type=positive, default=1, help="of ours: parts of a CPU, or GPUs; a peer has one")
    parser.add_argument("--together", action="store_true", help="start all at once: no figures of starts")
    parser.add_argument("--out", type=pathlib.Path, help="file for the figures, as JSON")
    parser.add_argument("--plot", type=pathlib.Path, help="file for a picture of the rates beside ours, as PNG")
    arguments = parser.parse_args()
    if not arguments.networks:
        parser.error("--networks: name one or more")
    if said := [name for name in ("JAX_NUM_CPU_DEVICES", "OPTIONS", "REPLACED") if name in os.environ]:
        parser.error(f"the environment has {', '.join(said)}, which this sets for ours: unset it")
    check_peers_installed(parser)
    if missing := [peer for peer in arguments.peers if not PEERS[peer]]:
        parser.error(
            f"--peers: {', '.join(missing)}: not found. GUIDED_DIFFUSION and EDM name clones of the first two's, "
            "denoising-diffusion-pytorch is installed by make bench"
        )
    if arguments.plot and arguments.plot.suffix != ".png":
        parser.error(f"--plot {arguments.plot}: its name has to end in .png")
    for file in filter(None, (arguments.out, arguments.plot)):
        if file.is_dir():
            parser.error(f"{file} is a folder: name a file")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"{file}: {error}")
    if absent := [peer for peer, there in PEERS.items() if not there]:
        print(f"not compared: {', '.join(absent)} (GUIDED_DIFFUSION, EDM: clones of theirs)", file=sys.stderr)
    found = {"about": about(arguments), "networks": {}}
    print(found["about"], flush=True)
    for network in arguments.networks:
        found["networks"][network] = measured(network, arguments)
        print("\n".join(table(network, found["networks"][network])), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(found, indent=1))
    if arguments.plot:
        plot(found, arguments.plot)


def about(arguments: argparse.Namespace) -> str:
    """Machine, versions and work, in a line."""
    smi = subprocess.run(
        "nvidia-smi --query-gpu=name --format=csv,noheader", shell=True, capture_output=True, text=True
    )
    machine = smi.stdout.strip() or f"{os.cpu_count()} cores of {processor()}"
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("jax", "torch", "diffusers"))
    return f"{machine}; {', '.join(versions)}; {arguments.dtype}, batches of {arguments.batch}" + (
        f", ours on {arguments.devices} devices" if arguments.devices > 1 else ""
    )


def processor() -> str:
    """Name of the CPU, and the widest vectors it computes with."""
    about = dict(re.findall(r"^(model name|flags)\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M))
    wide = [each for each in ("avx512f", "avx2") if each in about.get("flags", "").split()]
    return ", ".join([about.get("model name", platform.machine()), *wide[:1]])


def measured(network: str, arguments: argparse.Namespace) -> dict:
    """Figures of each contestant with one network."""
    with tempfile.TemporaryDirectory() as folder:
        start = functools.partial(started, network, arguments, pathlib.Path(folder))
        everyone, contestants, figures = ["ours", *arguments.peers], [], {}
        if arguments.together:

            def begin(who):
                with left_out(who, figures):
                    contestants.append(start(who))
                    figures[who] = {}

            with concurrent.futures.ThreadPoolExecutor(len(everyone)) as pool:
                list(pool.map(begin, everyone))
            figures = {who: figures[who] for who in everyone if who in figures}
            for made in contestants:
                with left_out(made.who, figures):
                    figures[made.who] = made("facts") | {"matmul": made("matmul")["matmul"]}
            contestants = [made for made in contestants if made.who in figures]
        else:
            for who in everyone:
                with left_out(who, figures):
                    made = start(who)
                    figures[who] = {"cold": made.first, "peak cold": made("peak")["start"], "warm": []} | made("facts")
                    figures[who]["matmul"] = made("matmul")["matmul"]
                    made.close()
                    print(f"{network}: {who} took its first step after {made.first:.1f} s, cold", file=sys.stderr)
            for _ in range(arguments.rounds):
                for made in contestants:
                    made.close()
                contestants = []
                for who in list(figures):
                    with left_out(who, figures):
                        contestants.append(start(who))
                        figures[who]["warm"].append(contestants[-1].first)
        count_alike(figures)
        for who, took in turns(contestants, figures, arguments.rounds, do="train", steps=arguments.steps):
            figures[who].setdefault("train", []).append(took["steps"] * arguments.batch / took["seconds"])
        for made in contestants:
            figures[made.who]["peak"] = made("peak")
        for batch in arguments.draws:
            order = {"batch": batch, "steps": ddim_steps(batch)}
            for who, took in turns(contestants, figures, arguments.rounds, do="sample", **order):
                figures[who].setdefault(f"sample {batch}", []).append(batch * order["steps"] / took["seconds"])
        for made in contestants:
            made.close()
    return figures


def started(network: str, arguments: argparse.Namespace, folder: pathlib.Path, who: str) -> Contestant:
    """A contestant which has taken its first step, warm where one before it has left what it compiled in the folder."""
    cache = folder / who
    cache.mkdir(exist_ok=True)
    return Contestant(who, network, arguments, cache)


def turns(contestants: list[Contestant], figures: dict, rounds: int, **order) -> Iterator[tuple[str, dict]]:
    """Who, and what it answers, in each round but a first, which warms up; in random order, as after some all are slower."""
    for turn in range(rounds + 1):
        for made in random.Random(turn).sample(contestants, len(contestants)):
            answer = None
            with left_out(made.who, figures):
                answer = made(**order)
            if answer is None:
                contestants.remove(made)
            elif turn:
                yield made.who, answer


@contextlib.contextmanager
def left_out(who: str, figures: dict) -> Iterator[None]:
    """A peer that ends, as for want of memory, leaves with its figures, and the others go on."""
    try:
        yield
    except Ended as ended:
        if who == "ours":
            raise
        figures.pop(who, None)
        print(f"without {who}, from now on. {ended}", file=sys.stderr)


def count_alike(figures: dict) -> None:
    """Counts the operations of diffusers' network as XLA does ours: PyTorch counts a fifteenth more of the same.

    Ends the command if it is not the same; with scale_shift theirs has no norm before the middle attention.
    """
    ours = figures["ours"]["parameters"]
    for who, of in figures.items():
        if who.startswith("diffusers"):
            if not 0 <= ours - of["parameters"] <= 1e-5 * ours:
                raise SystemExit(f"{who} has {of['parameters']:,} parameters, and ours {ours:,}: not the same network")
            of["operations"] = figures["ours"]["operations"]


if __name__ == "__main__":
    main()
