"""Networks of theirs with random weights, imported as a user would, beside ours."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ddpm import trained
from ddpm.condition import NOTHING
from ddpm.imports import import_run
from ddpm.interop import diffusers_unet
from ddpm.interop.foreign import params_of
from ddpm.models.unet import UNet

TIMES = np.array([1, 500, 1000])


def randomised(network):
    """All weights random: what is 0 or 1 at first would hide what it multiplies."""
    generator = torch.Generator().manual_seed(0)
    for name, weights in network.requires_grad_(False).named_parameters():
        weights.normal_(0, 0.1 if weights.ndim == 1 else weights[0].numel() ** -0.5, generator=generator)
        if "norm" in name and name.endswith("weight") and weights.ndim == 1:
            weights += 1
    return network.eval()


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def theirs_of(x):
    """NHWC as NCHW of PyTorch."""
    return torch.from_numpy(np.array(np.moveaxis(x, -1, 1)))


def imported(source, workdir, config=None, trained_with=""):
    """The run that --mode import makes."""
    assert import_run(str(source), workdir, config, trained_with) == 0
    return trained.read(workdir)


def carried(network):
    """A U-Net of diffusers as the module and parameters that an import makes of it, without a run."""
    config = json.loads(network.to_json_string())
    arrays = {name: weights.numpy() for name, weights in network.state_dict().items()}
    foreign = diffusers_unet.foreign(config, arrays, pathlib.Path("unet") / "weights")
    more = {"num_labels": foreign.labels} if foreign.labels else {}
    unet = UNet(config["out_channels"], **foreign.options, **more)
    return unet, lambda *example: params_of(foreign, jax.eval_shape(unet.init, jax.random.key(0), *example)["params"])


def output(run, x, t=TIMES, condition=NOTHING):
    """What its network says of x at our times t, which count from 1."""
    diffusion = run.diffusion

    @jax.jit
    def said(x):
        bound = diffusion.model(run.params, condition)
        return (bound.network if diffusion.classifies else bound).raw(x, jnp.asarray(t))

    with jax.default_matmul_precision("highest"):
        return np.asarray(said(x))


def assert_same(ours, theirs, atol=1e-4):
    """ours NHWC, theirs NCHW."""
    theirs = theirs.numpy()
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(np.moveaxis(ours, -1, 1), theirs, rtol=0, atol=atol)
