"""The command: `python -m ddpm.main --config experiments/digits.py --workdir runs/digits`."""

import os
import pathlib
import re
import runpy
import signal
import sys

from absl import app, flags
from ml_collections import config_flags

from ddpm import config as configs
from ddpm import distribution, exports, imports, modes, remote, sharding
from ddpm.errors import InputError, MachineError, in_file, unknown_name
from ddpm.train_many import train_many
from ddpm.tuning import tune

try:
    CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, such as experiments/digits.py.")
except flags.Error as mistake:  # of --flagfile, which is read here already
    print(f"error: {mistake}", file=sys.stderr)
    sys.exit(2)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run: checkpoints, figures, samples.")
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "sample", "eval", "report", "prepare", "encode", "import", "export"], "What to do."
)
NUM = flags.DEFINE_integer(
    "num",
    None,
    "Images to draw, in modes sample (64) and eval (evaluation.num); with --images, of these (all).",
    lower_bound=1,
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the images in modes sample and eval.", lower_bound=-(2**63), upper_bound=2**63 - 1
)
OUT = flags.DEFINE_string(
    "out",
    None,
    "The .npz of mode sample; the page of mode report (further runs for it follow the flags); with --images, a file for "
    "their statistics; the folder of mode export.",
)
STEP = flags.DEFINE_string(
    "step", None, "Checkpoint for modes sample and eval: a step, or 'best'; the newest if not given."
)
SAMPLER = flags.DEFINE_list(
    "sampler", [], "Sampler, instead of config.sampler.name; in mode eval several, with commas."
)
NUM_STEPS = flags.DEFINE_list("num_steps", [], "Steps, instead of config.sampler.num_steps; in mode eval several.")
LABELS = flags.DEFINE_list("labels", [], "Classes asked for, in turn; drawn evenly if not given.")
GUIDANCE = flags.DEFINE_float(
    "guidance_scale", None, "Of classifier-free guidance: 0 unconditional, 1 off, > 1 guided."
)
PROMPT = flags.DEFINE_multi_string("prompt", [], "What the images are to show, of a model that is told texts; in turn.")
GIVEN = flags.DEFINE_string("given", None, "An .npz of images to restore, or the run that draws them.")
KNOWN = flags.DEFINE_string(
    "known", None, "What is known of them, of a model not trained for it: inpainting, colourisation, super_resolution."
)
CLASSIFIERS = flags.DEFINE_list("classifiers", [], "Workdirs of classifiers that guide to the labels.")
CLASSIFIER_SCALE = flags.DEFINE_float("classifier_scale", None, "How far each of them pulls; 1 if not given.")
METRICS = flags.DEFINE_list("metrics", [], "Metrics of mode eval, such as fid,kid,pr, instead of evaluation.metrics.")
FEATURES = flags.DEFINE_string("features", None, "Feature network of mode eval, instead of evaluation.features.name.")
INCEPTION = flags.DEFINE_string("inception", None, "Weights of the 2015 Inception: features of mode eval.")
IMAGES = flags.DEFINE_string(
    "images", None, "A folder, .npz or data set (cifar10:test) for mode eval, instead of a run."
)
REFERENCE = flags.DEFINE_string("reference", None, "The same, or a statistics file: real images of mode eval.")
FROM = flags.DEFINE_string(
    "from",
    None,
    "What mode import makes a run of: a folder of diffusers; a .pt of OpenAI's U-Nets or classifiers, or of DiT.",
)
TRAINED_WITH = flags.DEFINE_string(
    "trained_with",
    "",
    "In mode import, the flags that the authors of a .pt give, where it does not say all: '--image_size 64 ...'.",
)
EXPECTED = flags.DEFINE_integer(
    "expect_processes", None, "Fail at once unless so many processes were started together.", lower_bound=1
)
ACCEPT_CHANGES = flags.DEFINE_bool("accept_changes", False, "Go on with a run whose configuration changed.")
SWEEP = flags.DEFINE_string(
    "sweep",
    None,
    "Runs to train instead of one: 'optimizer.learning_rate=1e-4,2e-4 seed=0..2'; those of the experiment's sweep(add) if "
    "not given.",
)
INDEX = flags.DEFINE_integer(
    "index", None, "The number of the one run of a sweep to train; all in turn if not given.", 0
)
LIST = flags.DEFINE_bool("list", False, "Print the runs of a sweep or a search, and train none.")
SEARCH = flags.DEFINE_string(
    "search",
    None,
    "Metric that runs are chosen by, from the experiment's space(trial): loss, or of evaluation.metrics.",
)
TRIALS = flags.DEFINE_integer("trials", None, "Runs of a search, over all workers; 20 if not given.", lower_bound=1)
OF_THE_USER = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
DRAWING = (
    "seed",
    "sampler",
    "num_steps",
    "labels",
    "guidance_scale",
    "prompt",
    "given",
    "known",
    "classifiers",
    "classifier_scale",
)
EVAL = ("workdir", "metrics", "num", "reference", "features", "inception")
TAKES = {
    "train": ("workdir", "accept_changes", "sweep", "index", "list", "search", "trials"),
    "sample": ("workdir", "step", "accept_changes", "num", "out", *DRAWING),
    "eval": (*EVAL, "step", "accept_changes", *DRAWING),
    "eval --images": (*EVAL, "images", "out"),
    "report": ("workdir", "out"),
    "prepare": (),
    "import": ("workdir", "from", "trained_with"),
    "export": ("workdir", "step", "out"),
    "encode": (),
}


def main(argv: list[str]) -> int:
    """Runs the mode that the flags name; a user's mistake is one line and exit code 2."""
    with distribution.leaving() as leave:
        return leave(_outcome(argv[1:]))


def _outcome(more: list[str]) -> int:
    try:
        with remote.pushing():
            return _run(more)
    except InputError as error:
        return _mistake(error)
    except OSError as error:  # a full or read-only disk, a file where a directory should be
        text = f"{error.filename or WORKDIR.value}: {error.strerror or error}. Mend it and run the same command."
        return _mistake(InputError(text) if isinstance(error, OF_THE_USER) else MachineError(text))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(more: list[str]) -> int:
    mode, config = MODE.value, CONFIG.value
    if config is None and mode in ("train", "prepare", "encode"):
        raise InputError(f"--mode {mode} needs --config, such as --config experiments/digits.py.")
    if more and mode != "report":
        raise InputError(
            f"{more[0]!r} is no flag: --mode {mode} takes nothing else; only --mode report takes several runs."
        )
    whole = "eval --images" if mode == "eval" and IMAGES.value else mode
    for name in sorted({flag for taken in TAKES.values() for flag in taken} - set(TAKES[whole])):
        if flags.FLAGS[name].present:
            users = " or ".join(f"--mode {mode}" for mode, taken in TAKES.items() if name in taken)
            raise InputError(f"--{name} does nothing in --mode {whole}, only in {users}.")
    if config is not None:
        sharding.split_cpu(config.training.cpu_devices)
    first = distribution.start(EXPECTED.value)
    if not first and whole not in ("train", "sample", "eval"):
        return 0  # the first process does it
    for flag in (OUT, GIVEN, IMAGES, REFERENCE, INCEPTION, FROM):
        if "://" in (flag.value or ""):
            raise InputError(
                f"--{flag.name}={flag.value}: only --workdir may be an address; give a path, mounted if need be."
            )
    if mode in ("prepare", "encode"):
        return modes.prepare(config) if mode == "prepare" else modes.encode(config)
    workdir = remote.local(WORKDIR.value) if WORKDIR.value else None
    if not first and mode != "train" and workdir and remote.address(workdir):
        return 0  # no other process sees what it would write
    if mode == "train":
        return train_many(
            config,
            config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0],
            workdir,
            text=SWEEP.value,
            index=INDEX.value,
            listing=LIST.value,
            metric=SEARCH.value,
            trials=TRIALS.value,
            accept_changes=ACCEPT_CHANGES.value,
        )
    if mode == "eval" and IMAGES.value:
        if config is None:
            raise InputError(
                "--images needs --config, whose data are the real images and whose evaluation says how to compare."
            )
        config.update_from_flattened_dict(_changes())
        out = pathlib.Path(OUT.value) if OUT.value else None
        return modes.evaluate_images(config, IMAGES.value, num=NUM.value, workdir=workdir, out=out)
    if workdir is None:
        raise InputError(f"--mode {mode} needs --workdir, such as --workdir runs/digits.")
    if mode == "import":
        if not FROM.value:
            raise InputError("--mode import needs --from, a folder of diffusers or a .pt file.")
        return imports.import_run(FROM.value, workdir, config, TRAINED_WITH.value)
    if mode == "export":
        if not OUT.value:
            raise InputError("--mode export needs --out, the folder to write.")
        return exports.export_run(workdir, _step(STEP.value), pathlib.Path(OUT.value))
    if mode == "report":
        return modes.report([workdir, *map(remote.local, more)], pathlib.Path(OUT.value) if OUT.value else None)
    opening = dict(step=_step(STEP.value), accept_changes=ACCEPT_CHANGES.value)
    samplers, num_steps = SAMPLER.value or [None], [_whole("num_steps", n) for n in NUM_STEPS.value] or [None]
    if mode == "eval":
        return modes.evaluate(
            config, workdir, samplers=samplers, num_steps=num_steps, seed=SEED.value, changes=_changes(), **opening
        )
    if len(samplers) > 1 or len(num_steps) > 1:
        raise InputError("--mode sample takes one --sampler and one --num_steps; --mode eval compares several.")
    changes = {"sampler.name": samplers[0], "sampler.num_steps": num_steps[0]}
    changes = {key: value for key, value in changes.items() if value is not None} | _drawing()
    out = pathlib.Path(OUT.value) if OUT.value else None
    return modes.sample(config, workdir, num=NUM.value or 64, seed=SEED.value, out=out, changes=changes, **opening)


def _changes() -> dict:
    """What the flags of mode eval change in a configuration."""
    chosen = {
        "evaluation.metrics": tuple(METRICS.value),
        "evaluation.num": NUM.value,
        "evaluation.reference": REFERENCE.value,
        "evaluation.features.name": FEATURES.value or ("inception" if INCEPTION.value else None),
        "evaluation.features.inception.path": INCEPTION.value,
    } | _drawing()
    return {key: value for key, value in chosen.items() if value not in (None, ())}


def _drawing() -> dict:
    """What the flags change in how images are drawn."""
    chosen = {
        "sampler.labels": tuple(_whole("labels", label) for label in LABELS.value),
        "sampler.prompts": tuple(PROMPT.value),
        "sampler.given": GIVEN.value,
        "known.name": KNOWN.value,
        "guidance.scale": GUIDANCE.value,
        "guidance.classifiers": tuple(CLASSIFIERS.value),
        "guidance.classifier_scale": CLASSIFIER_SCALE.value,
    }
    return {key: value for key, value in chosen.items() if value not in (None, ())}


def _step(text: str | None) -> int | str | None:
    return text if text in (None, "best") else _whole("step", text)


def _whole(flag: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise InputError(f"--{flag}={text} is no whole number.")
    return int(text)


def _parse_flags(argv: list[str]) -> list[str]:
    verbosity = flags.FLAGS["verbosity"]
    # Warnings: Orbax says fifty lines a checkpoint at level info.
    verbosity.value, verbosity.using_default_value = -1, False
    flags.FLAGS.set_gnu_getopt(True)  # flags may follow the runs of mode report
    try:
        _check_experiment(argv)
        return flags.FLAGS(argv)
    except (flags.Error, InputError) as error:
        sys.exit(_mistake(error))


def _check_experiment(argv: list[str]) -> None:
    """Raises InputError for a file, or a key, that ml_collections would answer with a traceback."""
    argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=True)
    named = [
        b if a in ("--config", "-config") else a.partition("=")[2]
        for a, b in zip(argv, [*argv[1:], ""], strict=True)
        if re.fullmatch(r"--?config(=.*)?", a)
    ]
    changed = [match[1] for match in (re.match(r"--?(?:no)?config\.([^=]+)", a) for a in argv) if match]
    if changed and not named:
        raise InputError(f"--config.{changed[0]} changes an experiment: name it by --config FILE.")
    for path in named:
        file, _, argument = path.partition(":")
        if not pathlib.Path(file).is_file():
            raise unknown_name("experiment", file, map(str, pathlib.Path("experiments").glob("*.py")))
        try:
            config = runpy.run_path(file)["get_config"](*([argument] if argument else []))
        except Exception as error:  # whatever the user's file raises
            raise in_file(file, error) from error
        known = configs.flat(config.to_dict())
        for key in changed:
            if key not in known:
                raise unknown_name("configuration key", key, known)


def _mistake(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return os.EX_IOERR if isinstance(error, MachineError) else 2


if __name__ == "__main__":
    os.environ.setdefault("DDPM_TRACED", "1")  # see training/traced.py
    tune()
    app.run(main, flags_parser=_parse_flags)
