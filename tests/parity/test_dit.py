"""The diffusion transformer against diffusers' DiTTransformer2DModel with the same random weights.

What differs in the weights alone, and is undone here: diffusers puts the cosines of a time before the sines, has a copy of
the embeddings in each block, and makes patches by a convolution. Its frequencies of a time are ours, i / (half - 1); those
of the paper's own code are i / half.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel

from ddpm.condition import Condition
from ddpm.models.dit import DiT

CLASSES = 5
RENAMED = {"attn1.to_q": "query", "attn1.to_k": "key", "attn1.to_v": "value", "attn1.to_out.0": "out"}
RENAMED |= {"norm1.linear": "modulation", "ff.net.0.proj": "mlp_1", "ff.net.2": "mlp_2"}


def diffusers_model(**options):
    """With the paper's epsilon in all norms, random weights and the embeddings of all blocks the same."""
    model = DiTTransformer2DModel(
        num_attention_heads=2, num_layers=2, num_embeds_ada_norm=CLASSES, norm_eps=1e-6, **options
    )
    generator = torch.Generator().manual_seed(0)
    for weights in model.requires_grad_(False).eval().parameters():
        weights.normal_(0, 0.1 if weights.ndim == 1 else weights[0].numel() ** -0.5, generator=generator)
    for block in model.transformer_blocks:
        block.norm1.emb = model.transformer_blocks[0].norm1.emb
    return model


def params_of(model):
    state = {name: weights.numpy() for name, weights in model.state_dict().items()}

    def dense(name):
        return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}

    emb = "transformer_blocks.0.norm1.emb"
    params = {
        "time_1": dense(f"{emb}.timestep_embedder.linear_1"),
        "time_2": dense(f"{emb}.timestep_embedder.linear_2"),
        "label": {"embedding": state[f"{emb}.class_embedder.embedding_table.weight"]},
        "modulation": dense("proj_out_1"),
        "out": dense("proj_out_2"),
    }
    cosines, sines = np.split(params["time_1"]["kernel"], 2)
    params["time_1"]["kernel"] = np.concatenate([sines, cosines])
    patch = state["pos_embed.proj.weight"].transpose(2, 3, 1, 0)
    params["patch"] = {"kernel": patch.reshape(-1, patch.shape[-1]), "bias": state["pos_embed.proj.bias"]}
    for i in range(len(model.transformer_blocks)):
        params[f"block_{i}"] = {ours: dense(f"transformer_blocks.{i}.{name}") for name, ours in RENAMED.items()}
    return {"params": jax.tree.map(jnp.asarray, params)}


@pytest.mark.parametrize(
    ("channels", "out_channels", "size", "patch_size", "head"),
    [(4, 8, 8, 2, 12), (3, 3, 12, 4, 8), (1, 2, 5, 1, 10)],
    ids=["learned_sigma", "patches_of_4", "patches_of_1"],
)
def test_dit_computes_what_diffusers_computes(channels, out_channels, size, patch_size, head):
    theirs = diffusers_model(
        attention_head_dim=head,
        in_channels=channels,
        out_channels=out_channels,
        sample_size=size,
        patch_size=patch_size,
    )
    ours = DiT(out_channels, patch_size, width=2 * head, depth=2, num_heads=2, num_labels=CLASSES + 1)
    x = np.random.default_rng(0).standard_normal((3, size, size, channels), np.float32)
    t, labels = np.array([1, 500, 999]), np.array([0, 4, CLASSES])  # the last is the null label
    params, condition = params_of(theirs), Condition(jnp.asarray(labels))
    template = jax.eval_shape(ours.init, jax.random.key(0), jnp.asarray(x), t, condition)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, template)
    expected = theirs(torch.from_numpy(np.moveaxis(x, -1, 1)), torch.from_numpy(t), torch.from_numpy(labels)).sample
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(ours.apply)(params, jnp.asarray(x), t, condition)
    np.testing.assert_allclose(np.moveaxis(actual, -1, 1), expected, rtol=0, atol=1e-4)


def test_tokens_of_little_variance_show_the_epsilon_of_the_norms():
    theirs = diffusers_model(
        attention_head_dim=8, in_channels=1, out_channels=1, sample_size=2, patch_size=1, dropout=0.0
    )
    theirs.pos_embed.pos_embed.zero_()
    for weights in theirs.pos_embed.proj.parameters():
        weights *= 1e-3
    for block in theirs.transformer_blocks:  # else the first sum brings the variance back
        block.norm1.linear.bias[32:48] = block.norm1.linear.weight[32:48] = 0
        block.norm1.linear.bias[80:] = block.norm1.linear.weight[80:] = 0
    x, t = torch.ones(2, 1, 2, 2), torch.tensor([3, 700])
    expected = theirs(x, t, torch.tensor([1, 2])).sample
    hidden = theirs.pos_embed(x)
    assert float(hidden.var(-1).max()) < 1e-5
    params = params_of(theirs)
    ours = DiT(1, 1, width=16, depth=2, num_heads=2, num_labels=CLASSES + 1, positions="rotary")  # adds none either
    actual = ours.apply(params, jnp.ones((2, 2, 2, 1)), jnp.array([3, 700]), Condition(jnp.array([1, 2])))
    np.testing.assert_allclose(np.moveaxis(actual, -1, 1), expected, rtol=0, atol=1e-4)
