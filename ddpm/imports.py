"""--mode import: other people's weights as a run, to sample, evaluate and train on."""

import dataclasses
import pathlib
import shlex
from typing import Any

import jax
from ml_collections import ConfigDict

from ddpm import autoencoders, build, objective, remote
from ddpm.config import flat, to_json
from ddpm.data.images import Facts, Scale
from ddpm.errors import InputError
from ddpm.interop import diffusers_folder, state_dicts
from ddpm.interop.foreign import Foreign, params_of
from ddpm.training import checkpoint
from ddpm.training.state import init_state

EXPERIMENT = '''"""{name}, imported: to train on, give --config {file}."""

from math import inf  # noqa: F401

from experiments import base


def get_config():
    """The experiment."""
    config = base.get_config()
    config.update_from_flattened_dict(
        {{
{changes}
        }}
    )
    return config
'''


def import_run(source: str, workdir: pathlib.Path, config: ConfigDict | None, trained_with: str) -> int:
    """Writes the network in a folder or file as checkpoint 0 of a run, and its experiment; returns the exit code.

    Args:
      source: a folder of diffusers, or a .pt of OpenAI's improved or guided diffusion or of DiT.
      config: for what the weights do not say; None for the defaults, where they need not.
      trained_with: the flags that its authors trained with, such as '--image_size 64 --num_heads 4'.
    Raises:
      InputError: it cannot be read, is of no network that is known here, or something is said by nobody.
    """
    path = pathlib.Path(source).expanduser()
    if checkpoint.steps_in(remote.checkpoints(workdir)):
        raise InputError(f"{workdir} holds a run: give another --workdir.")
    if path.is_dir():
        if trained_with:
            raise InputError(f"--trained_with says what a .pt does not; {path} has a config.json that does.")
    elif not path.is_file():
        raise InputError(f"no folder or file {source!r}: give a folder of diffusers or a .pt file.")
    try:
        if path.is_dir():
            foreign = diffusers_folder.read(path)
        else:
            foreign = state_dicts.read(path, trained_with, has_noise=config is not None)
    except InputError:
        raise
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError) as error:  # of arrays cut in any way
        raise InputError(
            f"{path} holds other arrays than the network that its names are of ({type(error).__name__}: {error}): it is not whole."
        ) from error
    given, config = config, _defaults() if config is None else config
    if "schedule.name" not in foreign.settings and given is None:
        raise InputError(
            f"{path} has no scheduler that says how it was trained: give --config, whose process, schedule and "
            "prediction are those of the network, such as --config experiments/linear_cifar.py."
        )
    config, facts = _experiment(foreign, ConfigDict(config.to_dict()))
    diffusion = objective.diffusion(config, facts.shape, len(facts.classes))
    params = params_of(foreign, jax.eval_shape(diffusion.init, jax.random.key(0)))
    write_run(workdir, config, facts, params)
    experiment = workdir / "experiment.py"
    experiment.write_text(_text(config, str(path), experiment), "utf-8")
    size, (height, width, channels) = sum(leaf.size for leaf in jax.tree.leaves(params)), facts.shape
    print(f"model     {foreign.model}: {size:,} parameters of {foreign.file}, for {height} x {width} x {channels}")
    print(f"run       {workdir}: --mode sample --workdir {workdir}")
    print(f"train     --config {experiment} --workdir {workdir}")
    for line in foreign.differs:
        print(f"differs   {line}")
    return 0


def write_run(workdir: pathlib.Path, config: ConfigDict, facts: Facts, params: Any) -> None:
    """Checkpoint 0 of a run that starts with these parameters."""
    process = objective.process(config)
    tx, history = build.gradient_transformation(config), objective.times_drawn(config, process).history
    checkpoints = checkpoint.Checkpoints(workdir, keep=1, keep_every=0)
    try:
        state = jax.jit(lambda params: init_state(params, tx, history))(params)
        checkpoints.save(0, state, {"config": to_json(config), "facts": dataclasses.asdict(facts)})
        checkpoints.finish()
    finally:
        checkpoints.close()


def _defaults() -> ConfigDict:
    from experiments import base

    return base.get_config()


def _experiment(foreign: Foreign, config: ConfigDict) -> tuple[ConfigDict, Facts]:
    """The experiment that the network is of, and the facts of its data."""
    given = {"latents.autoencoder": config.latents.autoencoder} if config.latents.autoencoder else {}
    config.update_from_flattened_dict(foreign.settings | given)
    if config.process.VP.told == "share" and config.schedule.T != 1000:
        raise InputError(
            f"process.VP.told = 'share' is of no network of others, and schedule.T is {config.schedule.T}: set it to 'index', "
            "or to 'scaled_index' where times were rescaled to 1000, as in improved diffusion."
        )
    if config.process.VP.told == "share":
        config.process.VP.told = "index"
    if config.process.name != "VP":
        raise InputError(
            f"process '{config.process.name}' is none of {foreign.file}, whose times are integers from 0: use process VP."
        )
    config.model.name = foreign.model
    config.model[foreign.model].update(foreign.options)
    trained_by = objective.loss(config)
    if foreign.model == "noisy_classifier":
        config.loss.name = "cross_entropy"
    elif trained_by.classifies or foreign.learned_variance != (trained_by.outputs == 2):
        config.loss.name = "hybrid" if foreign.learned_variance else "weighted"
    if foreign.learned_variance:
        config.sampler.ancestral.variance = "learned"
    elif config.sampler.ancestral.variance == "learned":
        config.sampler.ancestral.variance = "beta"
    classes = foreign.labels
    if classes and foreign.model != "noisy_classifier":
        has_null = config.condition.labels and config.condition.null_rate > 0
        has_null = has_null if foreign.has_null is None else foreign.has_null
        config.condition.labels = True
        config.condition.null_rate = (config.condition.null_rate or 0.1) if has_null else 0.0
        classes -= has_null
    else:
        config.condition.labels = False
    if foreign.text and not config.condition.text.name:
        raise InputError(
            f"{foreign.file} is told texts of {foreign.text} features: give --config with the text encoder it was trained "
            "with in condition.text, such as name 'clip' and clip.path."
        )
    return config, Facts(foreign.shape, 0, tuple(map(str, range(classes))), _scale(foreign, config))


def _scale(foreign: Foreign, config: ConfigDict) -> Scale | None:
    """That of the latents which the network denoises; None for images."""
    path, channels = config.latents.autoencoder, foreign.shape[-1]
    if not path and foreign.scale:
        raise InputError(
            f"{foreign.file} denoises latents of the autoencoder {foreign.scale.autoencoder}: give --config with the path "
            "of that one in latents.autoencoder."
        )
    if not path and channels in (1, 3):
        return None
    if not path:
        raise InputError(
            f"{foreign.file} denoises {channels} channels, which are latents: give the folder of the pipeline with its vae or vqvae, "
            "or --config with the autoencoder in latents.autoencoder."
        )
    autoencoder = autoencoders.read(path)
    if autoencoder.channels != channels:
        raise InputError(
            f"{foreign.file} denoises {channels} channels, and the autoencoder at {path} has {autoencoder.channels}: "
            "give the one it was trained with as latents.autoencoder."
        )
    if foreign.scale and foreign.scale.autoencoder != autoencoder.sha256:
        raise InputError(
            f"{foreign.file} denoises latents of the autoencoder {foreign.scale.autoencoder}, and the one at {path} is "
            f"{autoencoder.sha256}: give the former in latents.autoencoder."
        )
    return foreign.scale or autoencoder.scale or Scale((0.0,) * channels, (1.0,) * channels, autoencoder.sha256)


def _text(config: ConfigDict, name: str, file: pathlib.Path) -> str:
    """A file of an experiment: what differs from experiments/base.py."""
    default, now = flat(_defaults().to_dict()), flat(config.to_dict())
    changes = {key: value for key, value in now.items() if key not in default or default[key] != value}
    lines = (f"            {key!r}: {value!r}," for key, value in changes.items())
    return EXPERIMENT.format(name=name, file=shlex.quote(str(file)), changes="\n".join(lines))
