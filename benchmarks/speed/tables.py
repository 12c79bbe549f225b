"""What measure.py found, as a table and as a picture."""

import pathlib
import statistics
from collections.abc import Sequence

from networks import PEERS


def ddim_steps(images: int) -> int:
    """Of a turn of drawing so many at once."""
    return {1: 20, 16: 5}.get(images, 2)


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
    images = int(work.split()[1])
    return f"DDIM of {images}, steps x images/s of {ddim_steps(images)} steps (spread)"


def plot(found: dict, file: pathlib.Path) -> None:
    """Bars: images per second of each, of the fastest peer's in the same round; the lines on them span the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found["networks"]), figsize=(5 * len(found["networks"]), 3.2), squeeze=False)
    for axis, (network, figures) in zip(axes[0], found["networks"].items(), strict=True):
        works = [name for name in figures["ours"] if name == "train" or name.startswith("sample ")]
        for i, (who, of) in enumerate(figures.items()):
            peers = [peer for peer in figures if peer != "ours"] or ["ours"]
            best = [max((figures[peer][work] for peer in peers), key=statistics.median) for work in works]
            rates = [[a / b for a, b in zip(of[work], one, strict=True)] for work, one in zip(works, best, strict=True)]
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
