"""CLIP's text model, which the first latent diffusion models are told a text by."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ddpm.errors import InputError, unknown_name
from ddpm.interop import hugging_face
from ddpm.models.clip_text import ACTIVATIONS, ClipTextEncoder
from ddpm.text.encoder import TextEncoder, text_encoder

REMEDY = (
    "Give a folder such as openai/clip-vit-large-patch14, with config.json, model.safetensors, and tokenizer.json or "
    "vocab.json and merges.txt, as its option `path`."
)
LAYER = {"attention_norm": "layer_norm1", "norm": "layer_norm2", "wide": "mlp.fc1", "narrow": "mlp.fc2"}  # ours: theirs
FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip(path: str = "", length: int = 77, padded: bool = False) -> TextEncoder:
    """CLIP's text model; a text's vector is the features of its last token, before the projection to images.

    Args:
      path: a folder in Hugging Face's layout, of a text model or of a whole CLIP.
      length: tokens kept of a text, in 3..77, the first and the last, which every text has, included.
      padded: every text is filled up to that with last tokens, which are read too, as Stable Diffusion's are.
    Raises:
      InputError: there is none, it holds another network, a library is missing, or another length.

    Radford et al. 2021; Rombach et al. 2022.
    """
    folder = hugging_face.find(path, "CLIP text model", remedy=REMEDY)
    folder = dataclasses.replace(folder, config=folder.config.get("text_config", folder.config))
    model = ClipTextEncoder(
        **folder.options(
            tokens="vocab_size",
            positions="max_position_embeddings",
            width="hidden_size",
            inner="intermediate_size",
            layers="num_hidden_layers",
            heads="num_attention_heads",
            activation="hidden_act",
            epsilon="layer_norm_eps",
        )
    )
    if model.activation not in ACTIVATIONS:
        raise unknown_name(f"hidden_act in {folder.path}/config.json", model.activation, ACTIVATIONS)
    embeddings = "embeddings.token_embedding.weight"
    prefix = "" if embeddings in folder.weights.arrays else "text_model."
    params = {
        "tokens_embedded": {"embedding": folder.weights[f"{prefix}{embeddings}"]},
        "positions_embedded": {"embedding": folder.weights[f"{prefix}embeddings.position_embedding.weight"]},
        "norm": folder.norm(f"{prefix}final_layer_norm"),
    }
    for i in range(model.layers):
        theirs = f"{prefix}encoder.layers.{i}"
        names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
        names = {part: f"{theirs}.self_attn.{name}" for part, name in names.items()}
        params[f"layer_{i}.attention"] = folder.attention(model.heads, **names)
        for part, name in LAYER.items():
            read = folder.norm if part.endswith("norm") else folder.dense
            params[f"layer_{i}.{part}"] = read(f"{theirs}.{name}")
    blank = jnp.zeros((1, 3), jnp.int32)
    folder.weights.check(params, jax.eval_shape(lambda: model.init(jax.random.key(0), blank))["params"])

    def apply(params, tokens, mask):
        features = model.apply({"params": params}, tokens)
        if padded:
            return features, None
        last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
        return features, jnp.take_along_axis(features, last[:, None, None], axis=1)[:, 0]

    return text_encoder(
        "CLIP text model",
        folder.sha256,
        _tokenizer(folder),
        apply,
        params,
        length=length,
        padding=LAST if padded else "",
        width=model.width,
        most=model.positions,
    )


def _tokenizer(folder: hugging_face.Folder) -> Any:
    """That of tokenizer.json, or the one that vocab.json and merges.txt mean: lower case, pieces of words."""
    vocabulary, merges = (folder.path / name for name in ("vocab.json", "merges.txt"))
    if (folder.path / hugging_face.TOKENIZER).is_file() or not (vocabulary.is_file() and merges.is_file()):
        return folder.tokenizer()
    tokenizers = hugging_face.tokenizers()
    try:
        model = tokenizers.models.BPE.from_file(str(vocabulary), str(merges), end_of_word_suffix="</w>", unk_token=LAST)
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{vocabulary} or {merges.name} cannot be read ({error}). Copy them again.") from error
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.NFC(),
            tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            tokenizers.normalizers.Lowercase(),
        ]
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="removed", invert=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    first, last = (made.token_to_id(token) for token in (FIRST, LAST))
    if first is None or last is None:
        raise InputError(f"{vocabulary} has no {FIRST} or no {LAST}: it is not that of a CLIP. {REMEDY}")
    made.post_processor = tokenizers.processors.RobertaProcessing((LAST, last), (FIRST, first), False, False)
    return made
