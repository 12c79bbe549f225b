"""U-Nets and classifiers of improved and guided diffusion, carried over from files of PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ddpm.condition import Condition

from .carried import TIMES, assert_same, drawn, imported, output, randomised, theirs_of
from .openai import Network

SMALL = dict(size=16, channels=32, mult=(1, 2), blocks=1, attention=(1,))
NOISE = "--noise_schedule linear --diffusion_steps 1000"
NETWORKS = {  # and what no shape says of them
    "improved": (dict(heads=4, outputs=6, **SMALL), "--num_heads 4 --use_new_attention_order False"),
    "first_improved": (dict(scale_shift=False, **SMALL), "--num_heads 1"),
    "guided": (
        dict(head_channels=16, legacy=False, updown=True, classes=5, **SMALL),
        "--num_head_channels 16 --use_new_attention_order True",
    ),
    "guided_legacy": (
        dict(size=16, channels=32, mult=(1, 1, 2), blocks=2, attention=(0, 2), head_channels=16, updown=True, images=1, outputs=2),
        "--num_head_channels=16 --use_new_attention_order=False",
    ),
    "half_at_first": (  # as guided diffusion's for 512 pixels
        dict(size=8, channels=64, mult=(0.5, 1), blocks=1, attention=(0,), head_channels=32),
        "--num_head_channels 32 --use_new_attention_order False",
    ),
    "one_level": (
        dict(size=4, channels=32, mult=(1,), blocks=2, attention=(), heads=2),
        "--num_heads 2 --use_new_attention_order False",
    ),
}  # fmt: skip


def saved(path, network):
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize(("options", "flags"), NETWORKS.values(), ids=NETWORKS)
def test_an_imported_unet_says_what_it_did(options, flags, tmp_path):
    network = randomised(Network(**options))
    for weights in network.input_blocks[0].parameters():  # features of little variance show the epsilon of the norms
        weights *= 1e-2
    flags = f"--image_size {options['size']} {flags} {NOISE}"
    ours = imported(saved(tmp_path / "model.pt", network), tmp_path / "run", trained_with=flags)
    x, labels = drawn(3, *ours.facts.shape), jnp.array([0, 4, 2]) if "classes" in options else None
    theirs = network(
        theirs_of(x), torch.from_numpy(TIMES - 1), None if labels is None else torch.from_numpy(np.array(labels))
    )
    assert_same(output(ours, x, condition=Condition(labels)), theirs)
    assert ours.diffusion.learned_variance == (options.get("outputs", 3) == 2 * options.get("images", 3))


def test_scaled_times_are_told(tmp_path):
    network = randomised(Network(heads=1, **SMALL))
    flags = "--image_size 16 --num_heads 1 --noise_schedule cosine --diffusion_steps 4000 --rescale_timesteps True"
    ours = imported(saved(tmp_path / "model.pt", network), tmp_path / "run", trained_with=flags)
    x, t = drawn(3, 16, 16, 3), np.array([1, 1999, 4000])
    assert_same(output(ours, x, t), network(theirs_of(x), torch.from_numpy((t - 1) / 4)))
    assert ours.config.schedule.name == "cosine" and ours.config.schedule.T == 4000


CLASSIFIERS = {
    "guided": (dict(head_channels=16, updown=True, **SMALL), 7),
    "two_blocks": (dict(size=16, channels=32, mult=(1, 2, 2), blocks=2, attention=(0, 2), head_channels=32, updown=True), 3),
    "convolutions": (dict(size=8, channels=32, mult=(1, 2), blocks=2, attention=(0,), head_channels=32, scale_shift=False), 4),
}  # fmt: skip


@pytest.mark.parametrize(("options", "classes"), CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_an_imported_classifier_says_what_it_did(options, classes, tmp_path):
    network = randomised(Network(classes_said=classes, **options))
    flags = f"--image_size {options['size']} --classifier_num_head_channels {options['head_channels']} {NOISE}"
    flags += " --num_heads 4 --num_channels 192 --use_new_attention_order True"  # of the U-Net that it guides
    ours = imported(saved(tmp_path / "model.pt", network), tmp_path / "run", trained_with=flags)
    x = drawn(3, *ours.facts.shape)
    theirs = network(theirs_of(x), torch.from_numpy(TIMES - 1))
    np.testing.assert_allclose(output(ours, x, condition=Condition(jnp.zeros(3, int))), theirs, rtol=0, atol=1e-4)
    assert len(ours.facts.classes) == classes and ours.diffusion.classifies
