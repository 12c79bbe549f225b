"""Diffusion transformers of diffusers and of the paper's own code, carried over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from ddpm import run
from ddpm.condition import Condition
from ddpm.exports import export_run
from ddpm.training.checkpoint import checksums

from .carried import TIMES, assert_same, drawn, imported, output, randomised, theirs_of
from .dit import DiT, positions

CLASSES = 5
LABELS = jnp.array([0, 4, CLASSES])  # the last is the null label
DIFFUSERS = {
    "learned_variance": dict(in_channels=1, out_channels=2, sample_size=8, patch_size=2, attention_head_dim=12),
    "patches_of_4": dict(in_channels=3, sample_size=12, patch_size=4, attention_head_dim=8, norm_eps=1e-6),
    "patches_of_1": dict(in_channels=1, sample_size=5, patch_size=1, attention_head_dim=10, num_layers=3),
}
PAPERS = {
    "learned_variance": (dict(size=8, patch=2, channels=3, outputs=6, width=384, depth=1, heads=6), ""),
    "patches_of_4": (dict(size=12, patch=4, channels=3, outputs=3, width=24, depth=2, heads=2), "--num_heads 2"),
    "mlp_ratio": (dict(size=3, patch=1, channels=1, outputs=2, width=32, depth=3, heads=4, ratio=2), "--num_heads 4"),
}


def shared(network):
    """Random weights, the embeddings of all blocks the same, as in what was published."""
    network = randomised(network)
    for block in network.transformer_blocks:
        block.norm1.emb = network.transformer_blocks[0].norm1.emb
    return network


def saved(folder, network, scheduler=None):
    network.save_pretrained(folder / "transformer", safe_serialization=False)  # one array in many places
    (scheduler or DDIMScheduler(clip_sample=False)).save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("options", DIFFUSERS.values(), ids=DIFFUSERS)
def test_a_transformer_of_diffusers_says_what_it_did_and_is_itself_exported_and_imported_again(options, tmp_path):
    options = {"num_layers": 2} | options
    network = shared(DiTTransformer2DModel(num_attention_heads=2, num_embeds_ada_norm=CLASSES, **options))
    ours = imported(saved(tmp_path / "pipeline", network), tmp_path / "run")
    x = drawn(3, *ours.facts.shape)
    theirs = network(theirs_of(x), torch.from_numpy(TIMES - 1), torch.from_numpy(np.array(LABELS))).sample
    assert_same(output(ours, x, condition=Condition(LABELS)), theirs)
    assert ours.diffusion.told.null.labels == CLASSES and len(ours.facts.classes) == CLASSES

    assert export_run(tmp_path / "run", None, tmp_path / "out") == 0
    assert checksums(imported(tmp_path / "out", tmp_path / "again").params) == checksums(ours.params)


def test_a_sample_of_a_transformer_is_theirs_before_and_after_export(tmp_path):
    options = dict(in_channels=3, sample_size=8, patch_size=2, attention_head_dim=12, num_layers=2)
    network = shared(DiTTransformer2DModel(num_attention_heads=2, num_embeds_ada_norm=CLASSES, **options))
    # x0, lest samples of a network of noise grow without bounds
    scheduler = DDIMScheduler(timestep_spacing="trailing", clip_sample=False, prediction_type="sample")
    imported(saved(tmp_path / "pipeline", network, scheduler), tmp_path / "run")
    ours, x, labels = run.load(tmp_path / "run"), drawn(2, 8, 8, 3), np.array([3, 1])
    with jax.default_matmul_precision("highest"):
        sample = ours.sampler(num_steps=10, labels=(3, 1)).lead(ours.params, x)
    export_run(tmp_path / "run", None, tmp_path / "out")
    exported = DiTTransformer2DModel.from_pretrained(tmp_path / "out" / "transformer").requires_grad_(False).eval()
    for model, made in (
        (network, scheduler),
        (exported, DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler")),
    ):
        y = theirs_of(x)
        made.set_timesteps(10)
        for t in made.timesteps:
            y = made.step(model(y, t.expand(2), torch.from_numpy(labels)).sample, t, y).prev_sample
        assert_same(sample, y)


def test_tokens_of_little_variance_show_the_epsilon_of_the_norms(tmp_path):
    options = dict(attention_head_dim=8, in_channels=1, out_channels=1, sample_size=2, patch_size=1, norm_eps=1e-6)
    network = shared(DiTTransformer2DModel(num_attention_heads=2, num_embeds_ada_norm=CLASSES, num_layers=2, **options))
    network.pos_embed.pos_embed.zero_()
    for weights in network.pos_embed.proj.parameters():
        weights *= 1e-3
    for block in network.transformer_blocks:  # else the first sum brings the variance back
        block.norm1.linear.bias[32:48] = block.norm1.linear.weight[32:48] = 0
        block.norm1.linear.bias[80:] = block.norm1.linear.weight[80:] = 0
    x, labels = np.ones((3, 2, 2, 1), np.float32), np.array(LABELS)
    assert float(network.pos_embed(theirs_of(x)).var(-1).max()) < 1e-5
    ours = imported(saved(tmp_path / "pipeline", network), tmp_path / "run")
    ours.config.model.dit.positions = "rotary"  # adds none either, and turns nothing where all tokens are the same
    theirs = network(theirs_of(x), torch.from_numpy(TIMES - 1), torch.from_numpy(labels)).sample
    assert_same(output(ours, x, condition=Condition(LABELS)), theirs)


@pytest.mark.parametrize(("options", "flags"), PAPERS.values(), ids=PAPERS)
def test_a_transformer_of_the_papers_code_says_what_it_did(options, flags, tmp_path):
    network = randomised(DiT(classes=CLASSES, **options))
    with torch.no_grad():
        network.pos_embed[0] = positions(options["size"] // options["patch"], options["width"])
    torch.save(network.state_dict(), tmp_path / "dit.pt")
    ours = imported(tmp_path / "dit.pt", tmp_path / "run", trained_with=flags)
    x = drawn(3, *ours.facts.shape)
    theirs = network(theirs_of(x), torch.from_numpy(TIMES - 1), torch.from_numpy(np.array(LABELS)))
    assert_same(output(ours, x, condition=Condition(LABELS)), theirs)
