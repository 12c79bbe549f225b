"""Directories as runs leave them, in milliseconds: with the writers of training and evaluation, but for the state."""

import html
import io
import re

import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from ddpm import pictures
from ddpm.config import to_json
from ddpm.evaluation import records
from ddpm.report.collect import collect
from ddpm.report.page import page
from ddpm.training import checkpoint
from experiments import digits

REFERENCE = {"kind": "data set", "name": "digits:train", "num": 1000, "of": 1500, "sha256": "a94b35c556aa68f3"}
FEATURES = {"name": "pixels", "sha256": "-", "rule": "pixels in [0, 1], as they are"}


def config(**changes):
    """The digits experiment with other values, by dotted names written with `__`."""
    chosen = digits.get_config()
    chosen.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return to_json(chosen)


def write_run(workdir, *, loss=0.1, steps=(100, 200, 300), **changes):
    """Metrics, sample grids, and the record of a checkpoint."""
    workdir.mkdir(parents=True)
    rows = []
    for i, step in enumerate(steps):
        row = {"step": step, "skipped": 0, "loss": loss + 1 / (1 + i), "grad_norm": 1.0, "images_per_second": 900.0 + i}
        rows.append(row | {f"loss_t_quarter_{q}": loss * (5 - q) for q in range(1, 5)})
        for kind in ("", "_raw"):
            pictures.save_png(workdir / "samples" / f"{step:08d}{kind}.png", noise(step))
    write_metrics(workdir, rows)
    pictures.save_png(workdir / "samples" / "path.png", noise(1))
    write_record(workdir, steps[-1], config(**changes))
    return workdir


def write_metrics(workdir, rows):
    from ddpm.training.metrics import Metrics

    writer = Metrics(workdir, 0)
    for row in rows:
        writer.scalars(row["step"], {key: value for key, value in row.items() if key != "step"})
    writer.close()


def write_record(workdir, step, configuration, **more):
    leaves = {"params/conv/kernel": {"shape": [3, 3, 1, 8], "dtype": "float32", "crc32": 0}}
    facts = {"shape": [8, 8, 1], "count": 1500, "classes": list("0123456789")}
    record = {"config": configuration, "facts": facts, "step": step, "versions": checkpoint.versions()}
    place = workdir.absolute() / "checkpoints" / str(step) / "record"
    handler = ocp.Checkpointer(ocp.JsonCheckpointHandler())
    handler.save(place, args=ocp.args.JsonSave(record | {"leaves": leaves} | more), force=True)


def evaluate(
    workdir,
    figures,
    *,
    num=200,
    step=300,
    sampler="ancestral",
    nfe=100,
    reference=None,
    features=None,
    versions=None,
    generated=None,
    **how,
):
    """Adds a record of figures; what is not given is as for all of them."""
    options = {"eta": 0.0} if sampler == "ddim" else {"variance": "posterior"}
    made = {"kind": "run", "name": str(workdir), "step": step, "params": "EMA", "params_sha256": f"{step:016x}"}
    made |= {"sampler": sampler, "sampler_options": options, "num_steps": nfe, "nfe": nfe, "clip": True, "seed": 0}
    made |= {"guidance_scale": None, "when": "afterwards", "num": num, "pixels_sha256": f"{step + nfe:016x}"} | how
    provenance = {
        "generated": generated or made,
        "reference": REFERENCE | (reference or {}),
        "features": FEATURES | (features or {}),
        "metrics": {"kid": {"subsets": 100, "subset_size": 1000}},
        "versions": checkpoint.versions() | (versions or {}),
        "date": "2026-01-02T03:04:05",
    }
    records.store(workdir, {"figures": figures, "provenance": provenance})


def noise(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 1), dtype=np.uint8)


def png(seed=0):
    file = io.BytesIO()
    Image.fromarray(noise(seed)[..., 0]).save(file, "png")
    return file.getvalue()


def write_sweep(folder, count):
    """Runs that differ in learning rate and schedule, with figures."""
    rng = np.random.default_rng(0)
    workdirs = []
    for i in range(count):
        rate, schedule = round(float(10 ** rng.uniform(-5, -3)), 7), ("linear", "cosine")[i % 2]
        run = write_run(folder / f"run{i:02d}", loss=rate, optimizer__learning_rate=rate, schedule__name=schedule)
        evaluate(run, {"fd": 100 * rate, "precision": 0.5 + 0.01 * (i % 7)})
        workdirs.append(run)
    return workdirs


def written(*workdirs, title="runs"):
    """The page of runs, without the library it carries."""
    whole = page(collect(list(workdirs)), title)
    start, end = whole.index('id="plots">'), whole.rindex("<script>")
    plots, _, after = whole[start:end].partition("</script>")
    return whole[:start] + plots + "</script>" + whole[end:]


def text(whole):
    """What is read on a page, without its markup."""
    return html.unescape(re.sub(r"<[^>]*>", " ", whole.partition("<main>")[2].partition('<script type="appl')[0]))
