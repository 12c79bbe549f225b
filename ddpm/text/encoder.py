"""What a text encoder is to a model: texts to features of their tokens, of one length."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from ddpm.errors import InputError

BATCH = 32  # texts at once: one shape, so one program
CHUNK = 64 * BATCH  # texts in memory at once on their way to a cache

Encoded = tuple[Float[np.ndarray, "n length width"], Bool[np.ndarray, "n length"]]


class TextEncoder(NamedTuple):
    """A frozen text encoder.

    about: what it is, in words.
    sha256: 16 hexadecimal digits of all that its features depend on: weights, tokenizer, length.
    length: tokens a text has at most; a longer one is cut, and a warning names it.
    width: of the features.
    encode: texts -> (features float32 [n, length, width], which of the tokens there are [n, length]). Features are zero
      where there is no token. Those of a text depend on nothing but it.
    pooled: texts -> float32 [n, width], one vector for each; None where the network has none.
    """

    about: str
    sha256: str
    length: int
    width: int
    encode: Callable[[Sequence[str]], Encoded]
    pooled: Callable[[Sequence[str]], Float[np.ndarray, "n width"]] | None


def text_encoder(
    about: str,
    sha256: str,
    tokenizer: Any,
    apply: Callable,
    params: Any,
    *,
    length: int,
    width: int,
    most: int,
    padding: str = "",
) -> TextEncoder:
    """The encoder that a tokenizer and a network make.

    Args:
      sha256: of the files.
      tokenizer: of the library tokenizers; it adds a last token to each text, and perhaps a first.
      apply: (params, tokens int32 [n, length], which of them there are [n, length]) ->
        (features [n, length, width], pooled [n, width] or None); pure.
      length: tokens a text has at most, in 3..most.
      most: tokens the network can read.
      padding: the token that texts are filled up with to that length, and that is there as others are; '' for none.
    Raises:
      InputError: another length.
    """
    if not 3 <= length <= most:
        raise InputError(f"length = {length} must be in 3..{most}, what is added to each text included.")
    tokenizer.no_padding()
    if padding:
        tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    tokenizer.enable_truncation(length)
    params = jax.device_put(params)

    @jax.jit
    def run(params, tokens, mask):
        features, pooled = apply(params, tokens, mask)
        return jnp.where(mask[:, :, None], features, 0), pooled

    def outputs(texts):
        tokens, mask = tokenized(tokenizer, texts, length)
        for start in range(0, len(texts), BATCH):
            rows = slice(start, start + BATCH)
            missing = ((0, BATCH - len(tokens[rows])), (0, 0))
            features, pooled = run(params, np.pad(tokens[rows], missing), np.pad(mask[rows], missing))
            yield rows, features, pooled, mask[rows]

    def encode(texts: Sequence[str]) -> Encoded:
        features, mask = np.empty((len(texts), length, width), np.float32), np.empty((len(texts), length), bool)
        for rows, of_batch, _, there in outputs(texts):
            features[rows], mask[rows] = of_batch[: len(there)], there
        return features, mask

    def pooled(texts: Sequence[str]) -> Float[np.ndarray, "n width"]:
        vectors = np.empty((len(texts), width), np.float32)
        for rows, _, of_batch, there in outputs(texts):
            vectors[rows] = of_batch[: len(there)]
        return vectors

    sha = hashlib.sha256(" ".join(filter(None, [sha256, str(length), padding])).encode()).hexdigest()[:16]
    return TextEncoder(about, sha, length, width, encode, pooled)


def tokenized(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int32 [n, length], which of them there are [n, length]); a text that is cut keeps its last token."""
    tokens, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool)
    cut = []
    for i, (text, read) in enumerate(zip(texts, tokenizer.encode_batch(list(texts)), strict=True)):
        tokens[i, : len(read.ids)], mask[i, : len(read.ids)] = read.ids, True
        if read.overflowing:
            cut.append(text)
    if cut:
        more = f", and {len(cut) - 1} more texts" if len(cut) > 1 else ""
        logging.warning("cut to %d tokens: %r%s; `length` says how many are kept", length, cut[0], more)
    return tokens, mask


def cached(encoder: TextEncoder, texts: Sequence[str], directory: str | pathlib.Path) -> Encoded:
    """What `encode` gives for the texts, read from files of the directory; the first time it is encoded and written.

    The arrays are mapped, not read: rows come from disk when asked for. Files are bound to the encoder and to the texts
    in their order, and are whole or not there.
    """
    digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]
    folder = pathlib.Path(directory).expanduser()
    files = [folder / f"{encoder.sha256}-{digest}-{name}.npy" for name in ("features", "mask")]
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        parts = [file.with_name(f".{os.getpid()}-{file.name}") for file in files]
        shape = (len(texts), encoder.length)
        features = np.lib.format.open_memmap(parts[0], "w+", np.float32, (*shape, encoder.width))
        mask = np.lib.format.open_memmap(parts[1], "w+", bool, shape)
        for start in range(0, len(texts), CHUNK):
            rows = slice(start, start + CHUNK)
            features[rows], mask[rows] = encoder.encode(texts[rows])
        features.flush()
        mask.flush()
        for part, file in zip(parts, files, strict=True):
            part.replace(file)
    features, mask = (np.load(file, mmap_mode="r") for file in files)
    return features, mask
