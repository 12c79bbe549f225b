"""Latents of a data set: computed once, kept in a folder of checksummed shards, and read as a data set."""

import dataclasses
import fcntl
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from ddpm.data.images import Dataset, Scale
from ddpm.errors import InputError

SHARD = 1024  # images of which a shard holds the latents
RECORD, SHARDS, TOLD = "latents.json", "shards.jsonl", "told.npz"
LOCK = ".lock"  # held by the command that writes; of a command that was killed it is free


def encode_to(
    folder: pathlib.Path,
    dataset: Dataset,
    encode: Callable[[np.ndarray], np.ndarray],
    *,
    about: dict,
    scale: Scale | None,
    progress: Callable[[str], None],
) -> Scale:
    """Writes the latents of all images in half precision, with labels and captions; returns their scale.

    A shard is listed with its checksum once it is whole, so that an interrupted command goes on with the next.

    Args:
      dataset: of images.
      encode: uint8 [n, height, width, channels] -> float32 [n, *shape].
      about: the autoencoder and the data: other latents than of these are refused.
      scale: mean and standard deviation of the latents, if they are known; None measures them.
    Raises:
      InputError: the folder holds latents of something else, or another command writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another command writes latents to {folder}: wait for it, or give another latents.path."
            ) from error
        return _encode_to(folder, dataset, encode, about, scale, progress)


def _encode_to(folder, dataset, encode, about, scale, progress):
    draft = folder / f"{RECORD}.part"
    for file in (folder / RECORD, draft):
        if file.is_file() and (before := _json(file)["about"]) != about:
            raise InputError(
                f"{folder} holds latents of {_words(before)}, not of {_words(about)}: give another latents.path, or remove it."
            )
    _write_json(draft, {"about": about})
    count, whole = len(dataset.images), _whole_shards(folder)
    for first in range(len(whole) * SHARD, count, SHARD):
        last = min(first + SHARD, count)
        rows = encode(np.stack([dataset.images[i] for i in range(first, last)])).astype(np.float16)
        if not np.isfinite(rows).all():
            raise InputError(
                f"latents of images {first} to {last - 1} are not finite: the autoencoder does not fit them."
            )
        file = folder / f"{first:09d}.npy"
        part = file.with_suffix(".part")
        with part.open("wb") as opened:
            np.save(opened, rows)
        part.replace(file)
        whole.append({"file": file.name, "rows": last - first, "sha256": _sha256(file)})
        with (folder / SHARDS).open("a") as listed:
            listed.write(json.dumps(whole[-1]) + "\n")
        progress(f"{last}/{count} images are encoded")
    told = {"labels": dataset.labels, "captions": dataset.captions}
    with (folder / TOLD).open("wb") as opened:
        np.savez(opened, **{name: np.asarray(rows) for name, rows in told.items() if rows is not None})
    whole.append({"file": TOLD, "sha256": _sha256(folder / TOLD)})
    scale = scale or Scale(*_measured([folder / shard["file"] for shard in whole[:-1]]), about["autoencoder"]["sha256"])
    record = {"about": about, "classes": dataset.classes, "scale": dataclasses.asdict(scale), "files": whole}
    _write_json(folder / RECORD, record | {"sha256": _digest(record)})
    draft.unlink()
    return scale


def read(folder: pathlib.Path, remedy: str) -> tuple[Dataset, dict]:
    """The data set of (latents - mean) / std, float32, and `about`.

    Raises:
      InputError: no or unfinished latents there, or a file that is missing or differs from its checksum.
    """
    if not (folder / RECORD).is_file():
        raise InputError(f"no latents in {str(folder)!r}, or not all of them: {remedy}.")
    record = _json(folder / RECORD)
    files = [folder / written["file"] for written in record.get("files", ())]
    whole = record.pop("sha256", None) == _digest(record)
    damaged = [] if whole else [folder / RECORD]
    for file, written in zip(files, record.get("files", ()), strict=True):
        damaged += [] if file.is_file() and _sha256(file) == written["sha256"] else [file]
    if damaged:
        raise InputError(
            f"{damaged[0]} is missing or differs from its checksum. Remove {folder / RECORD} and {remedy}."
        )
    scale = Scale(tuple(record["scale"]["mean"]), tuple(record["scale"]["std"]), record["scale"]["autoencoder"])
    with np.load(folder / TOLD) as told:
        labels, captions = (told.get(name) for name in ("labels", "captions"))
    latents = Shards(files[:-1], scale)
    captions = None if captions is None else captions.tolist()
    return Dataset(latents, tuple(record["classes"]), labels, captions, scale), record["about"]


class Shards(Sequence):
    """Scaled latents, read from the files when asked."""

    def __init__(self, files: list[pathlib.Path], scale: Scale):
        self._shards = [np.load(file, mmap_mode="r") for file in files]
        self._count, self._scale = sum(map(len, self._shards)), scale

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> np.ndarray:
        return self._scale.down(self._shards[i // SHARD][i % SHARD].astype(np.float32))


def _whole_shards(folder):
    """Those that are listed, up to the first that is not what its checksum says; the list is cut there."""
    file, whole = folder / SHARDS, []
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            shard = json.loads(line)
            in_turn = shard["file"] == f"{len(whole) * SHARD:09d}.npy" and shard["rows"] == SHARD
            intact = in_turn and _sha256(folder / shard["file"]) == shard["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            break
        whole.append(shard)
    if file.is_file():
        file.write_text("".join(json.dumps(shard) + "\n" for shard in whole))
    return whole


def _measured(files):
    """Mean and standard deviation of each channel, in double precision."""
    total = squares = count = 0
    for file in files:
        rows = np.load(file).astype(np.float64)
        total = total + rows.sum(axis=(0, 1, 2))
        squares = squares + (rows**2).sum(axis=(0, 1, 2))
        count += rows[..., 0].size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())


def _json(file):
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}). Remove {file.parent} and encode again.") from error


def _write_json(file, values):
    part = file.with_name(f".{file.name}")
    part.write_text(json.dumps(values, indent=1))
    part.replace(file)


def _digest(record):
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _words(about):
    return f"{about['data']['name']} by {about['autoencoder']['path']} ({about['autoencoder']['sha256']})"
