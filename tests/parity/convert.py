"""The weights of diffusers' UNet2DModel as parameters of our UNet."""

import re

import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

RENAMED = {
    r"conv_norm_out": "norm_out",
    r"time_embedding\.linear_(\d)": r"time_\1",
    r"mid_block\.resnets\.(\d)": r"mid_\1",
    r"mid_block\.attentions\.0": "mid_attention",
    r"_blocks\.(\d)\.resnets\.(\d)": r"_\1_\2",
    r"_blocks\.(\d)\.attentions\.(\d)": r"_\1_\2_attention",
    r"_blocks\.(\d)\.(down|up)samplers\.0": r"_\1_\2sample",
    r"\b(norm|conv)(\d)": r"\1_\2",
    r"time_emb_proj": "time",
    r"conv_shortcut": "skip",
    r"group_norm": "norm",
    r"to_q": "query",
    r"to_k": "key",
    r"to_v": "value",
    r"to_out\.0": "out",
}
LAYOUT = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}  # ours of a vector, Linear [out, in] and Conv2d [out, in, height, width]


def unet_params(state_dict, levels):
    """Params of a state_dict whose network has `levels` resolutions."""
    flat = {}
    for name, tensor in state_dict.items():
        # We number levels by resolution both ways, and give the downsampling to the level it leads to.
        name = re.sub(r"up_blocks\.(\d)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}", name)
        name = re.sub(r"(\d)\.downsamplers", lambda m: f"{int(m[1]) + 1}.downsamplers", name)
        for theirs, ours in RENAMED.items():
            name = re.sub(theirs, ours, name)
        name = name.replace("weight", "scale" if tensor.ndim == 1 else "kernel")
        flat[tuple(name.split("."))] = jnp.asarray(tensor.numpy().transpose(LAYOUT[tensor.ndim]))
    return unflatten_dict(flat)
