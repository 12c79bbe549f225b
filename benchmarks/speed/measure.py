"""Speed of ours and of its peers, in turns: training steps, sampling, memory, start-up.

make bench, or python benchmarks/speed/measure.py [--networks small,cifar10] [--peers diffusers,...] [--batch 16]
  [--dtype float32] [--steps 3] [--rounds 5] [--draws 1,16,64] [--together] [--out results]

Each contestant is a process of its own, which waits while another has its turn. All take the same step, with the gradient
clipped, Adam, EMA and dropout, on images in memory, and draw with the same number of steps of DDIM; of each round there is a
ratio, whose median is printed. A peer whose code is read from a path is left out where its variable (GUIDED_DIFFUSION, EDM) is
not set, and denoising-diffusion-pytorch where it is not installed. The share of the peak is of the operations of each network, as XLA counts
ours and PyTorch theirs (a fifteenth more for the same network: with the zeros around an image), to those of a product of matrices. Networks
are not all the same, so ours is also compared with the peer that does the most operations a second. Each is started cold once, and warm in each
round, while no other runs; --together starts all at once, and once, in less time and without figures of that (on a GPU each then chooses its
kernels while others start).
"""

import argparse
import concurrent.futures
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from networks import NETWORKS, check_peers_installed, names, positive, positives

HERE = pathlib.Path(__file__).parent
PEERS = {  # and whether they are there
    "diffusers": True,
    "diffusers_channels_last": True,
    "diffusers_compiled": True,
    "guided_diffusion": os.path.isfile(os.environ.get("GUIDED_DIFFUSION", "") + "/guided_diffusion/unet.py"),
    "edm": os.path.isfile(os.environ.get("EDM", "") + "/training/networks.py"),
    "denoising_diffusion_pytorch": importlib.util.find_spec("denoising_diffusion_pytorch") is not None,
}
DDIM = {1: 20, 16: 5}  # steps by images at once; fewer of more


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
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        parser.error("the environment has JAX_NUM_CPU_DEVICES, which --devices is for: unset it")
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
    return f"{machine}; {', '.join(versions)}; {arguments.dtype}, batches of {arguments.batch}"


def processor() -> str:
    """Name of the CPU, and the widest vectors it computes with."""
    about = dict(re.findall(r"^(model name|flags)\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M))
    wide = [each for each in ("avx512f", "avx2") if each in about.get("flags", "").split()]
    return ", ".join([about.get("model name", platform.machine()), *wide[:1]])


def measured(network: str, arguments: argparse.Namespace) -> dict:
    """Figures of each contestant with one network."""
    with tempfile.TemporaryDirectory() as folder:
        start = functools.partial(started, network, arguments, pathlib.Path(folder))
        everyone = ["ours", *arguments.peers]
        if arguments.together:
            with concurrent.futures.ThreadPoolExecutor(len(everyone)) as pool:
                contestants = [made for made in pool.map(start, everyone) if made]
                facts = pool.map(lambda made: made("facts"), contestants)
                figures = {made.who: of for made, of in zip(contestants, facts, strict=True)}
            for made in contestants:
                check_same(made.who, figures)
                figures[made.who]["matmul"] = made("matmul")["matmul"]
        else:
            contestants, figures = [], {}
            for who in everyone:
                made = start(who)
                if not made:
                    continue
                figures[who] = {"cold": made.first, "peak cold": made("peak")["start"], "warm": []} | made("facts")
                figures[who]["matmul"] = made("matmul")["matmul"]
                check_same(who, figures)
                made.close()
                print(f"{network}: {who} took its first step after {made.first:.1f} s, cold", file=sys.stderr)
            for _ in range(arguments.rounds):
                for made in contestants:
                    made.close()
                contestants = [made for made in map(start, figures) if made]
                for made in contestants:
                    figures[made.who]["warm"].append(made.first)
            figures = {made.who: figures[made.who] for made in contestants}
        for made in contestants:
            figures[made.who]["train"] = []
            made("train", steps=1)
        for _ in range(arguments.rounds):
            for made in contestants:
                took = made("train", steps=arguments.steps)
                figures[made.who]["train"].append(took["steps"] * arguments.batch / took["seconds"])
        for made in contestants:
            figures[made.who]["peak"] = made("peak")
        for batch in arguments.draws:
            order = {"batch": batch, "steps": DDIM.get(batch, 2)}
            for made in contestants:
                made("sample", **order)
                figures[made.who][f"sample {batch}"] = []
            for _ in range(arguments.rounds):
                for made in contestants:
                    rate = batch * order["steps"] / made("sample", **order)["seconds"]
                    figures[made.who][f"sample {batch}"].append(rate)
        for made in contestants:
            made.close()
    return figures


def started(network: str, arguments: argparse.Namespace, folder: pathlib.Path, who: str) -> Contestant | None:
    """A contestant which has taken its first step, warm where one before it has left what it compiled in the folder.

    None for a peer that ended before: the others go on.
    """
    cache = folder / who
    cache.mkdir(exist_ok=True)
    try:
        return Contestant(who, network, arguments, cache)
    except Ended as ended:
        if who == "ours":
            raise
        print(f"{network}: without {who}. {ended}", file=sys.stderr)
        return None


def check_same(who: str, figures: dict) -> None:
    """Ends the command if diffusers' network is not ours; with scale_shift theirs has no norm before the middle attention."""
    theirs, ours = figures[who]["parameters"], figures["ours"]["parameters"]
    if who.startswith("diffusers") and not 0 <= ours - theirs <= 1e-5 * ours:
        raise SystemExit(f"{who} has {theirs:,} parameters, and ours {ours:,}: not the same network")


def median(figures: Sequence[float]) -> str:
    """And spread."""
    return f"{statistics.median(figures):.3g} ({min(figures):.3g} to {max(figures):.3g})"


def table(network: str, figures: dict) -> list[str]:
    """Lines of Markdown."""
    ours, peers = figures["ours"], [who for who in figures if who != "ours"]
    peak = max(of["matmul"] for of in figures.values())
    works = [name for name in ours if name == "train" or name.startswith("sample ")]
    starts = "warm" in ours
    memory = "memory, GB, at most: until the first step cold, warm; later" if starts else "memory, GB, at most"
    lines = [
        "",
        f"{network}: {ours['parameters']:,} parameters; products of matrices run at {peak / 1e12:.3g} TFLOP/s",
        "",
        f"| who | {' | '.join(f'{heading(work)} | of the peak' for work in works)} | {memory} |"
        + " first step cold, warm, s |" * starts,
        "|---|" + "---:|" * (2 * len(works) + 1 + starts),
    ]
    for who, of in figures.items():
        cells = []
        for work in works:
            share = statistics.median(operations(of, work)) / peak
            cells += [median(of[work]), f"{share:.0%}"]
        most = (of["peak cold"], of["peak"]["start"]) if starts else ()
        most = (*most, of["peak"]["device"] or of["peak"]["resident"])
        cells.append(", ".join(f"{size / 1e9:.2f}" for size in most))
        lines.append(
            f"| {who} | {' | '.join(cells)} |" + (f" {of['cold']:.1f}, {median(of['warm'])} |" if starts else "")
        )
    if starts:
        lines += ["", f"XLA compiled our step for {ours['compiled']:.1f} of the {ours['cold']:.1f} s of a cold start"]
    lines.append("")
    for work in works if peers else ():
        said = []
        for rates in (images, operations):
            peer = max(peers, key=lambda who: statistics.median(rates(figures[who], work)))
            ratios = [a / b for a, b in zip(rates(ours, work), rates(figures[peer], work), strict=True)]
            said.append(f"{statistics.median(ratios):.2f} times {peer} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"{work}: {said[0]}; in operations {said[1]}")
    return lines


def images(of: dict, work: str) -> list[float]:
    """A second, in each round."""
    return of[work]


def operations(of: dict, work: str) -> list[float]:
    """A second, in each round."""
    return [rate * of["operations"][work.split()[0]] for rate in of[work]]


def heading(work: str) -> str:
    """What a column of rates is of."""
    if work == "train":
        return "training, images/s (spread)"
    return f"DDIM of {work.split()[1]}, steps x images/s (spread)"


def plot(found: dict, file: pathlib.Path) -> None:
    """Bars: images per second of each, as a multiple of the fastest peer's; the lines on them span the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found["networks"]), figsize=(5 * len(found["networks"]), 3.2), squeeze=False)
    for axis, (network, figures) in zip(axes[0], found["networks"].items(), strict=True):
        works = [name for name in figures["ours"] if name == "train" or name.startswith("sample ")]
        for i, (who, of) in enumerate(figures.items()):
            best = [
                max((statistics.median(figures[peer][work]) for peer in figures if peer != "ours"), default=1)
                for work in works
            ]
            rates = [[rate / one for rate in of[work]] for work, one in zip(works, best, strict=True)]
            middle = [statistics.median(each) for each in rates]
            low = [m - min(each) for m, each in zip(middle, rates, strict=True)]
            high = [max(each) - m for m, each in zip(middle, rates, strict=True)]
            places = [place + 0.8 * (i / len(figures) - 0.5) for place in range(len(works))]
            same = dict(color=f"C{['ours', *PEERS].index(who)}", label=who.replace("_", " "))  # in each network
            axis.bar(places, middle, 0.8 / len(figures), yerr=(low, high), align="edge", **same)
        axis.axhline(1, color="black", linewidth=0.5)
        axis.set_xticks(range(len(works)), works)
        axis.set_title(f"{network}, {figures['ours']['parameters'] / 1e6:.1f} M parameters", fontsize=10)
    axes[0][0].set_ylabel("images/s, of the fastest peer's")
    labels = {label: bars for axis in axes[0] for bars, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels, loc="lower center", ncols=4, fontsize=7)
    figure.suptitle(found["about"], fontsize=7)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(file, dpi=150, bbox_inches="tight")  # the legend may be wider than one panel


if __name__ == "__main__":
    main()
