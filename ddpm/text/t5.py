"""T5's encoder, which Imagen and those after it are told a text by."""

import jax
import jax.numpy as jnp

from ddpm.errors import unknown_name
from ddpm.interop import hugging_face
from ddpm.models.t5 import T5Encoder
from ddpm.text.encoder import TextEncoder, text_encoder

REMEDY = (
    "Give a folder such as google-t5/t5-small or google/t5-v1_1-base, with config.json, model.safetensors (one file) and "
    "tokenizer.json, as its option `path`."
)
TRAINED = 512  # tokens of a text in training; distances have no end of their own
GATED = {"relu": False, "gated-gelu": True}


def t5(path: str = "", length: int = 77) -> TextEncoder:
    """T5's encoder; it has no vector for a text.

    Args:
      path: a folder in Hugging Face's layout, of an encoder or of a whole T5.
      length: tokens kept of a text, in 3..512, the last, which every text has, included.
    Raises:
      InputError: there is none, it holds another network, a library is missing, or another length.

    Raffel et al. 2020; Saharia et al. 2022.
    """
    folder = hugging_face.find(path, "T5", remedy=REMEDY)
    kind = folder.config.get("feed_forward_proj", "relu")  # files of old leave defaults out
    if kind not in GATED:
        raise unknown_name(f"feed_forward_proj in {folder.path}/config.json", kind, GATED)
    model = T5Encoder(
        **folder.options(
            tokens="vocab_size",
            width="d_model",
            inner="d_ff",
            layers="num_layers",
            heads="num_heads",
            head="d_kv",
            buckets="relative_attention_num_buckets",
            epsilon="layer_norm_epsilon",
        ),
        furthest=folder.config.get("relative_attention_max_distance", 128),
        gated=GATED[kind],
    )
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    params = {
        "tokens_embedded": {"embedding": folder.weights["shared.weight"]},
        "distances_embedded": {"embedding": folder.weights[first]},
        "norm": {"scale": folder.weights["encoder.final_layer_norm.weight"]},
    }
    products = {part: f"0.SelfAttention.{part[0]}" for part in ("query", "key", "value", "out")}
    products |= {"wide": "1.DenseReluDense.wi", "narrow": "1.DenseReluDense.wo"}
    if model.gated:
        products |= {"wide": "1.DenseReluDense.wi_0", "gate": "1.DenseReluDense.wi_1"}
    for i in range(model.layers):
        theirs = f"encoder.block.{i}.layer"
        for part, name in products.items():
            params[f"layer_{i}.{part}"] = {"kernel": folder.weights[f"{theirs}.{name}.weight"].T}
        for part, which in (("attention_norm", 0), ("norm", 1)):
            params[f"layer_{i}.{part}"] = {"scale": folder.weights[f"{theirs}.{which}.layer_norm.weight"]}
    blank = jnp.zeros((1, 3), jnp.int32)
    folder.weights.check(params, jax.eval_shape(lambda: model.init(jax.random.key(0), blank, blank == 0))["params"])

    def apply(params, tokens, mask):
        return model.apply({"params": params}, tokens, mask), None

    encoder = text_encoder(
        "T5",
        folder.sha256,
        folder.tokenizer(),
        apply,
        params,
        length=length,
        width=model.width,
        most=TRAINED,
    )
    return encoder._replace(pooled=None)
