"""Folders of small text encoders in Hugging Face's layout, with random weights and a few words."""

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH, INNER, LAYERS, POSITIONS, HEADS = 16, 24, 2, 40, 4
WORDS = ("a", "red", "blue", "heart", "car", "##s", "on", "the", "street", "[UNK]")
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def matrix(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name):
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def write(folder, config, shapes, seed=0):
    """Weights that keep activations near 1, so that every part of the network counts."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape) / np.sqrt(shape[-1]) ** (len(shape) - 1) for name, shape in shapes.items()}
    save_file({name: array.astype(np.float32) for name, array in arrays.items()}, folder / "model.safetensors")
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": HEADS, "max_position_embeddings": POSITIONS}
    (folder / "config.json").write_text(json.dumps(sizes | config))
    return folder


def minilm_folder(folder, seed=0):
    """A BERT that knows WORDS."""
    words = ["[PAD]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.enable_padding(length=30)  # as the published file has it: no business of ours
    shapes = {
        "embeddings.word_embeddings.weight": (len(words), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **norm("embeddings.LayerNorm"),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= matrix(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        shapes |= matrix(f"{layer}.attention.output.dense", WIDTH, WIDTH) | norm(f"{layer}.attention.output.LayerNorm")
        shapes |= matrix(f"{layer}.intermediate.dense", INNER, WIDTH) | matrix(f"{layer}.output.dense", WIDTH, INNER)
        shapes |= norm(f"{layer}.output.LayerNorm")
    write(folder, {"vocab_size": len(words), "layer_norm_eps": 1e-12, "model_type": "bert"}, shapes, seed)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def clip_vocabulary():
    """(tokens, merges): all bytes, of which 'r e d</w>' and 'c a' join."""
    more = ["re", "red</w>", "ca", "<|startoftext|>", "<|endoftext|>"]
    return [*BYTES, *(f"{byte}</w>" for byte in BYTES), *more], [("r", "e"), ("re", "d</w>"), ("c", "a")]


def save_clip_vocabulary(folder):
    """Writes vocab.json and merges.txt."""
    tokens, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")


def clip_folder(folder, seed=0, prefix="text_model."):
    """A CLIP text model; `prefix` of its names as older files have it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_clip_vocabulary(folder)
    count = len(clip_vocabulary()[0])
    shapes = {
        "embeddings.token_embedding.weight": (count, WIDTH),
        "embeddings.position_embedding.weight": (POSITIONS, WIDTH),
        **norm("final_layer_norm"),
    }
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= matrix(f"{layer}.self_attn.{part}", WIDTH, WIDTH)
        shapes |= norm(f"{layer}.layer_norm1") | norm(f"{layer}.layer_norm2")
        shapes |= matrix(f"{layer}.mlp.fc1", INNER, WIDTH) | matrix(f"{layer}.mlp.fc2", WIDTH, INNER)
    config = {"vocab_size": count, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "model_type": "clip_text_model"}
    return write(folder, config, {f"{prefix}{name}": shape for name, shape in shapes.items()}, seed)


def t5_folder(folder, seed=0, gated=True):
    """A T5 that knows WORDS, with the decoder that its files have and that is passed over."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS), "s"]
    tokenizer = Tokenizer(models.Unigram([(token, -1.0) for token in tokens], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    shapes = {"shared.weight": (len(tokens), WIDTH), "encoder.final_layer_norm.weight": (WIDTH,)}
    shapes["decoder.final_layer_norm.weight"] = (WIDTH,)
    for i in range(LAYERS):
        attention, mlp = (f"encoder.block.{i}.layer.{j}" for j in (0, 1))
        shapes |= {f"{attention}.SelfAttention.{part}.weight": (HEADS * 3, WIDTH) for part in "qkv"}
        shapes[f"{attention}.SelfAttention.o.weight"] = (WIDTH, HEADS * 3)
        shapes |= {
            f"{mlp}.DenseReluDense.{part}.weight": (INNER, WIDTH) for part in (("wi_0", "wi_1") if gated else ("wi",))
        }
        shapes[f"{mlp}.DenseReluDense.wo.weight"] = (WIDTH, INNER)
        shapes |= {f"{part}.layer_norm.weight": (WIDTH,) for part in (attention, mlp)}
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, HEADS)
    sizes = {
        "d_model": WIDTH,
        "d_ff": INNER,
        "d_kv": 3,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "vocab_size": len(tokens),
    }
    sizes |= {"relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6, "model_type": "t5"}
    return write(folder, sizes | ({"feed_forward_proj": "gated-gelu"} if gated else {}), shapes, seed)
