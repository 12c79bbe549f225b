"""Schedulers of diffusers: what they say of a process and of sampling, and the one that says it of a run of ours."""

import pathlib
from typing import Any

import numpy as np

from ddpm.errors import InputError, unknown_name
from ddpm.interop import said

EARLY, LATE = (1e-4, 0.02), (0.00085, 0.012)  # beta_start and beta_end where scheduler_config.json says none
BETAS = {
    f"{name}Scheduler": betas
    for betas, names in (
        (EARLY, "DDPM DDIM PNDM DPMSolverMultistep DPMSolverSinglestep UniPCMultistep DEISMultistep EulerDiscrete"),
        (EARLY, "EulerAncestralDiscrete LMSDiscrete"),
        (LATE, "HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete"),
    )
    for name in names.split()
}
SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
}
VARIANCES |= {"learned_range": "learned"}
SPACINGS = ("leading", "linspace", "trailing")
ALIKE = ("leading", "trailing")  # steps of their DDIM lead down by T // num_steps, on linspace past the next time
KINDS = {
    "_class_name": said.NAME,
    "num_train_timesteps": said.COUNT,
    "beta_start": said.BETA,
    "beta_end": said.BETA,
    "beta_schedule": said.NAME,
    "prediction_type": said.NAME,
    "variance_type": said.either(said.NAME, said.NONE),
    "clip_sample": said.BOOL,
    "clip_sample_range": said.POSITIVE,
    "thresholding": said.BOOL,
    "rescale_betas_zero_snr": said.BOOL,
    "timestep_spacing": said.one_of(*SPACINGS),
    "steps_offset": said.integer(0),
    "set_alpha_to_one": said.BOOL,
    "dynamic_thresholding_ratio": said.BETA,
    "sample_max_value": said.POSITIVE,
}
LEADING = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")  # where nothing else is said; the others: linspace
FAR = 1e6  # a sample_max_value that bounds nothing
CLIPPING = ("DDPMScheduler", "DDIMScheduler")  # where nothing else is said
REMEDY = "Leave the folder of the scheduler away and give --config, which says the process, schedule and prediction."


def settings(config: dict[str, Any], source: pathlib.Path) -> dict[str, Any]:
    """What a scheduler_config.json says, by dotted keys of a configuration.

    Raises:
      InputError: a scheduler of another process, or a schedule that is not ours.
    """
    said.check(config, KINDS, source)
    name = config.get("_class_name")
    if name not in BETAS:
        raise InputError(f"{source}: {unknown_name('scheduler', str(name), BETAS)} {REMEDY}")
    schedule = config.get("beta_schedule", "linear")
    thresholds = config.get("thresholding", False)  # and then asks nothing of clip_sample
    clips = not thresholds and config.get("clip_sample", name in CLIPPING)
    wrong = {key: config[key] for key in ("trained_betas", "use_flow_sigmas") if config.get(key)}
    if thresholds and config.get("sample_max_value", 1) < FAR:
        wrong["thresholding"] = True  # with a bound that ours has not
    if clips and config.get("clip_sample_range", 1) != 1:
        wrong["clip_sample_range"] = config["clip_sample_range"]
    for key, known in (("beta_schedule", SCHEDULES), ("prediction_type", PREDICTIONS), ("variance_type", VARIANCES)):
        wrong |= {key: config[key]} if key in config and config[key] not in known and config[key] else {}
    if wrong:
        key, value = next(iter(wrong.items()))
        raise InputError(f"{source}: {key} = {value!r:.60} has no counterpart here. {REMEDY}")
    T = config.get("num_train_timesteps", 1000)
    start, end = (config.get(key, value) for key, value in zip(("beta_start", "beta_end"), BETAS[name], strict=True))
    ours = SCHEDULES[schedule]
    found = {
        "process.name": "VP",
        "process.VP.told": "index",
        "schedule.name": ours,
        "schedule.T": T,
        "schedule.shift": 1.0,
        "schedule.zero_terminal_snr": bool(config.get("rescale_betas_zero_snr", False)),
        "prediction.name": PREDICTIONS[config.get("prediction_type", "epsilon")],
        "sampler.name": "ancestral" if name == "DDPMScheduler" else "ddim",
        "sampler.num_steps": T if name == "DDPMScheduler" else min(T, 50),
        "sampler.clip": clips or thresholds,
        "sampler.percentile": config.get("dynamic_thresholding_ratio", 0.995) if thresholds else 0.0,
        "grid.name": config.get("timestep_spacing", "leading" if name in LEADING else "linspace"),
        "sampler.ancestral.variance": VARIANCES[config.get("variance_type") or "fixed_small"],
    }
    if ours == "cosine":
        return found | {"schedule.cosine.s": 0.008, "schedule.cosine.beta_max": 0.999}
    # Ours are told for 1000 levels and scaled, theirs are taken as they are.
    return found | {f"schedule.{ours}.beta_1": start * T / 1000, f"schedule.{ours}.beta_T": end * T / 1000}


def differs(config: dict[str, Any]) -> tuple[str, ...]:
    """What a scheduler_config.json says of the steps that no grid of ours is like."""
    lines = []
    if config["_class_name"] not in ("DDPMScheduler", "DDIMScheduler"):
        lines.append(f"{config['_class_name']} samples there, and DDIM here: choose another with --sampler")
    if config.get("steps_offset"):
        lines.append(f"steps_offset = {config['steps_offset']} there, and 0 here: times are as many levels lower")
    if config["_class_name"] == "DDIMScheduler" and not config.get("set_alpha_to_one", True):
        lines.append("the last step leads to the first noise level there, and to none here")
    return tuple(lines)


def not_told(found: dict[str, Any], learned_variance: bool) -> tuple[str, ...]:
    """What a run samples by, by dotted keys, and `config_of` cannot say."""
    lines, sampler = [], found["sampler.name"]
    if not learned_variance and sampler not in ("ancestral", "ddim"):
        lines.append(f"sampler.name = {sampler!r}: theirs is DDIM, or load another of their schedulers")
    if sampler == "ddim" and found["sampler.ddim.eta"]:
        lines.append(f"sampler.ddim.eta = {found['sampler.ddim.eta']}: give it to their pipeline as eta")
    if sampler == "ancestral" and not learned_variance and found["sampler.ancestral.variance"] == "optimal":
        lines.append("sampler.ancestral.variance = 'optimal': theirs is the posterior's")
    if found["grid.name"] not in ALIKE or found["grid.final"] != "zero":
        lines.append(
            f"grid.name = {found['grid.name']!r}, grid.final = {found['grid.final']!r}: theirs leads to no noise"
        )
    if sampler != "ancestral" and not learned_variance and (found["sampler.clip"] or found["sampler.percentile"]):
        lines.append(
            "their DDIM keeps eps where it clips x0: for our samples give their pipeline use_clipped_model_output=True"
        )
    return tuple(lines)


def config_of(found: dict[str, Any], alpha_bar: np.ndarray, learned_variance: bool) -> dict[str, Any]:
    """scheduler_config.json of a run: DDPMScheduler where it samples ancestrally or learned a variance, else DDIMScheduler.

    Args:
      found: values of a configuration by dotted keys, as `settings` makes.
      alpha_bar: table of the process, [T + 1].
    Raises:
      InputError: a prediction type that diffusers has not.
    """
    prediction = {ours: theirs for theirs, ours in PREDICTIONS.items()}.get(found["prediction.name"])
    if prediction is None:
        raise InputError(
            f"diffusers' schedulers know no prediction '{found['prediction.name']}', only {', '.join(PREDICTIONS.values())}."
        )
    T, name = found["schedule.T"], found["schedule.name"]
    ancestral = learned_variance or found["sampler.name"] == "ancestral"
    shared = {
        "num_train_timesteps": T,
        "prediction_type": prediction,
        "clip_sample": found["sampler.clip"],
        "thresholding": found["sampler.percentile"] > 0,
        "dynamic_thresholding_ratio": found["sampler.percentile"] or 0.995,
        "sample_max_value": FAR,
        "timestep_spacing": found["grid.name"] if found["grid.name"] in ALIKE else "trailing",
        "steps_offset": 0,
        "trained_betas": None,
    }
    if ancestral:
        variance = "learned" if learned_variance else found["sampler.ancestral.variance"]
        theirs = {"posterior": "fixed_small", "beta": "fixed_large", "learned": "learned_range"}
        shared |= {"_class_name": "DDPMScheduler", "variance_type": theirs.get(variance, "fixed_small")}
    else:
        shared |= {"_class_name": "DDIMScheduler", "set_alpha_to_one": True}
    plain = found["schedule.shift"] == 1 and not found["schedule.zero_terminal_snr"]
    options = {key.rpartition(".")[2]: value for key, value in found.items() if key.startswith(f"schedule.{name}.")}
    if plain and name in ("linear", "quadratic"):
        schedule = {ours: theirs for theirs, ours in SCHEDULES.items()}[name]
        ends = {"beta_start": options["beta_1"] * 1000 / T, "beta_end": options["beta_T"] * 1000 / T}
        return shared | {"beta_schedule": schedule} | ends
    if plain and name == "cosine" and options == {"s": 0.008, "beta_max": 0.999}:
        return shared | {"beta_schedule": "squaredcos_cap_v2"}
    return shared | {"trained_betas": (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()}
