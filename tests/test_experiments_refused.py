"""Experiments that cannot be: an unknown name or a value out of range is told in one line."""

import pytest
from test_experiments import classes_of, sampler

from ddpm import build, datasets, names, objective
from ddpm.errors import InputError


def made_sampler(config):
    return sampler(config, objective.diffusion(config, (8, 8, 1), classes_of(config)), (8, 8, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler.name": "dimm"}, "unknown sampler 'dimm'. Did you mean 'ddim'? Known: ancestral, ddim, deis, "),
        (
            {"schedule.name": "cosin"},
            "unknown schedule 'cosin'. Did you mean 'cosine'? Known: cosine, linear, quadratic, sigmoid, sqrt.",
        ),
        ({"data.name": "digit"}, "unknown data set 'digit'. Did you mean 'digits'? Known: digits, folder, npz, tfds."),
        ({"model.name": "unett"}, "unknown model 'unett'. Did you mean 'unet'? Known: dit, noisy_classifier, unet."),
        ({"optimizer.name": "adaam"}, "unknown optimizer 'adaam'. Did you mean 'adam'? Near to it: adam, "),
        ({"optimizer.name": "lbfgs"}, "optax.lbfgs needs more than gradients and parameters: "),
        ({"schedule.name": "math.pi"}, "schedule 'math.pi' is no function or class, but 3.141592653589793."),
        ({"schedule.name": "math.floor"}, "alpha_bar of shape () is no table of T + 1 >= 3 values that starts with 1."),
        ({"model.unet.dtype": "float64"}, "unknown model.unet.dtype 'float64'. Did you mean "),
        ({"optimizer.name": "clip"}, "optax.clip is no optimizer: it takes no learning_rate. DDPM uses adam."),
        ({"model.name": "nowhere.Net"}, "model 'nowhere.Net' cannot be imported: No module named 'nowhere'."),
        (
            {"prediction.name": "eps", "schedule.zero_terminal_snr": True},
            "prediction 'eps' is impossible where alpha_T = 0: it leaves x_0 undetermined there. Use v or x0 ",
        ),
        ({"process.name": "RectifiedFlow"}, "prediction 'eps' is impossible where alpha_T = 0: "),
        ({"process.name": "SubVPP"}, "unknown process 'SubVPP'. Did you mean 'SubVP'? Known: "),
        (
            {"model.name": "noisy_classifier"},
            "loss 'weighted' and model 'noisy_classifier' do not go together: 'cross_entropy' trains 'noisy_classifier', ",
        ),
        (
            {"guidance.classifier_scale": float("nan")},
            "guidance.classifier_scale = nan is no finite number; papers use ",
        ),
        ({"weight.name": "minsnr"}, "unknown weight 'minsnr'. Did you mean 'min_snr'? Known: "),
        ({"timesteps.name": "log_normall"}, "unknown t-distribution 'log_normall'. Did you mean 'log_normal'? Known: "),
        (
            {"loss.name": "hybird"},
            "unknown loss 'hybird'. Did you mean 'hybrid'? Known: cross_entropy, hybrid, uncertain, ",
        ),
        (
            {"process.name": "ddpm.diffusion.process.Process"},
            "process 'Process' is abstract: name one that is made of it.",
        ),
        (
            {"process.name": "LearnedVP", "loss.name": "vdm", "grid.name": "log_snr"},
            "grid 'log_snr' is of a known process, and this one is learned: use trailing.",
        ),
        (
            {"process.name": "VE", "process.VE.t_min": 2.0},
            "t_min = 2.0 is not in (-1e-09, 1); score SDE uses 1e-5.",
        ),
        (
            {"process.name": "EDM", "process.EDM.sigma_max": 1.0},
            "alpha_bar_T = 0.5 leaves signal in x_T, but sampling starts from pure noise: it must be at most 0.01. Use ",
        ),
        (
            {"grid.name": "karas"},
            "unknown grid 'karas'. Did you mean 'karras'? Known: explicit, karras, leading, linspace, log_snr, quadratic, trailing.",
        ),
        (
            {"process.name": "EDM", "timesteps.name": "loss_second_moment"},
            "loss_second_moment remembers the losses of each noise level, but EDM has no levels. ",
        ),
        (
            {"sampler.ancestral.variance": "learned"},
            "variance 'learned' needs a network that says one: take 'beta' or 'posterior', or train with the loss ",
        ),
        ({"schedule.T": 1}, "T = 1 noise levels are too few; a schedule needs T >= 2 (DDPM uses 1000)."),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(tiny, change, message):
    tiny.update_from_flattened_dict(change)
    with pytest.raises(InputError) as caught:
        datasets.dataset(tiny)
        diffusion = objective.diffusion(tiny, (8, 8, 1))
        objective.times_drawn(tiny, diffusion.process)
        build.gradient_transformation(tiny)
        made_sampler(tiny)
    assert str(caught.value).startswith(message)


def test_an_option_that_a_choice_has_not_is_named(tiny):
    with tiny.unlocked():
        tiny.sampler.ancestral.etta = 1.0
    with pytest.raises(InputError) as caught:
        made_sampler(tiny)
    assert str(caught.value) == (
        "sampler 'ancestral': got an unexpected keyword argument 'etta'; it takes process, variance, eps_power."
    )


def my_sampler(process, *, eta=0.5):
    return names.find("sampler", "ddpm.sampling", "ddim")(process, eta=eta)


def test_a_dotted_name_finds_code_outside_the_package(tiny):
    tiny.sampler.name = f"{__name__}.my_sampler"
    made_sampler(tiny)


def test_an_experiment_can_give_options_to_a_choice_that_base_does_not_know(tiny):
    with tiny.unlocked():
        tiny.sampler.update(name=f"{__name__}.my_sampler", my_sampler=dict(eta=2.0))
    with pytest.raises(InputError, match=r"^eta = 2.0 is not in \[0, 1\]"):
        made_sampler(tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 6}, "model.unet.channels = 6 must be a multiple of 4; DDPM uses 128."),
        ({"num_heads": 3}, "model.unet.num_heads = 3 does not divide 8 times (1,) channels."),
        ({"num_heads": 0}, "model.unet.num_heads = 0 must be at least 1."),
        ({"num_res_blocks": 0}, "model.unet.num_res_blocks = 0 must be at least 1."),
        ({"dropout": 1.5}, "model.unet.dropout = 1.5 is not in [0, 1); DDPM uses 0.1."),
        ({"channel_mult": ()}, "model.unet.channel_mult = () must be positive integers, one a level, as (1, 2, 2, 2)."),
        ({"dtype": "float17"}, "unknown model.unet.dtype 'float17'. Did you mean 'bfloat16'?"),
    ],
)
def test_network_values_out_of_range_are_refused(tiny, change, message):
    tiny.model.unet.update(change)
    with pytest.raises(InputError) as caught:
        objective.diffusion(tiny, (8, 8, 1))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (dict(guidance=dict(interval=2)), "guidance.interval = 2 is no tuple."),
        (dict(prompts=["a", 3]), "prompts = ['a', 3] are no texts."),
    ],
)
def test_a_choice_of_another_kind_is_refused(tiny, choice, message):
    with pytest.raises(InputError) as caught:
        build.with_sampler(tiny, **choice)
    assert str(caught.value).startswith(message)


def test_one_classifier_needs_no_brackets(tiny):
    assert build.with_sampler(tiny, guidance=dict(classifiers="runs/clf")).guidance.classifiers == ("runs/clf",)


@pytest.mark.parametrize("kind", ["classifier", "function"])
def test_a_scale_of_guides_that_are_not_there_is_told_of(tiny, kind, caplog):
    tiny.guidance[f"{kind}_scale"] = 2.0
    made_sampler(tiny)
    assert caplog.messages == [f"guidance.{kind}_scale scales nothing without guidance.{kind}s"]
