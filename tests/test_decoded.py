"""A whole data set as arrays: in its order, decoded once, and never other images than would be read."""

import functools
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import REPO
from data_sets import noise
from PIL import Image

from ddpm.cache import cache_directory, keep, kept
from ddpm.data import decoded
from ddpm.data.decoded import in_memory, stacked
from ddpm.data.folder import ImageFiles, folder
from ddpm.data.images import Labels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache directory of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ddpm/images"


@pytest.fixture
def pictures(tmp_path):
    """Twenty images in a folder."""
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(noise(0, 20, 8, 8, 3)):
        Image.fromarray(image).save(tmp_path / f"pictures/{i:02d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def read(pictures, monkeypatch):
    """(the set as it is read anew, images that were decoded so far)."""
    opened, original = [], ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, i: opened.append(i) or original(self, i))
    return functools.partial(folder, path=str(pictures), size=8), opened


class InBlocks(Sequence):
    """Rows of a sequence that can read many at once, and says which it read."""

    def __init__(self, rows):
        self.rows, self.read = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        assert i == 0, "one by one takes longer"
        return self.rows[i]

    def __getitems__(self, indices):
        self.read.append((indices[0], indices[-1]))
        return [self.rows[i] for i in indices]


def test_images_read_one_by_one_come_into_memory_in_their_order(read):
    anew, _ = read
    dataset = anew()
    assert in_memory(dataset).nbytes == dataset.nbytes == 20 * 8 * 8 * 3
    np.testing.assert_array_equal(in_memory(dataset), noise(0, 20, 8, 8, 3))


def test_images_are_decoded_once(read, cache):
    anew, opened = read
    first = in_memory(anew())
    opened.clear()
    np.testing.assert_array_equal(in_memory(anew()), first)
    assert len(opened) < 12 and [file.name[:16] for file in cache.glob("*.npz")] == [anew().sha256]


def test_images_that_changed_are_decoded_anew(read, pictures):
    anew, _ = read
    in_memory(anew())
    Image.fromarray(noise(1, 8, 8, 3)).save(pictures / "07.png")
    np.testing.assert_array_equal(in_memory(anew())[7], noise(1, 8, 8, 3))


def test_images_that_are_decoded_in_another_way_than_they_were_are_decoded_anew(read, monkeypatch):
    anew, _ = read
    first, original = in_memory(anew()), ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, i: 255 - original(self, i))
    np.testing.assert_array_equal(in_memory(anew()), 255 - first)
    np.testing.assert_array_equal(in_memory(anew()), 255 - first)


def test_what_other_code_or_pillow_decoded_is_not_taken(read, cache, monkeypatch):
    anew, opened = read
    in_memory(anew())
    (first,) = cache.glob("*.npz")
    (another := cache / f"{'0' * 16}-{'0' * 16}.npz").write_bytes(b"another set")
    opened.clear()
    monkeypatch.setattr("PIL.__version__", "0.1")
    in_memory(anew())
    (second,) = set(cache.glob("*.npz")) - {another, first}  # which another checkout may use today
    aged(first, 2)
    code, plain = pathlib.Path(decoded.__file__), pathlib.Path.read_bytes
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: plain(path) + b"#" * (path == code))
    in_memory(anew())
    (third,) = set(cache.glob("*.npz")) - {another, second}  # what is as large and of no use is not left there
    assert first != third and len(opened) >= 40


def aged(file, days):
    os.utime(file, (then := time.time() - days * 86_400, then))


def test_what_had_no_use_for_a_month_is_removed(read, cache, pictures):
    anew, _ = read
    in_memory(anew())
    (used,) = cache.glob("*.npz")
    for name, days in {"old.npz": 31, ".part.npz": 31, "young.npz": 29, ".old.npz.lock": 31}.items():
        (cache / name).write_bytes(b"")
        aged(cache / name, days)
    aged(used, 29)
    in_memory(anew())
    assert time.time() - used.stat().st_mtime < 3600
    Image.fromarray(noise(1, 8, 8, 3)).save(pictures / "07.png")
    in_memory(anew())
    left = {file.name for file in cache.iterdir()}
    assert used.name in left and not left & {"old.npz", ".part.npz"} and left >= {"young.npz", ".old.npz.lock"}


def test_two_processes_decode_once(pictures, tmp_path):
    code = (
        "import sys, ddpm.data.decoded as decoded; from ddpm.data.folder import folder; plain = decoded.stacked\n"
        "decoded.stacked = lambda rows: print('decodes') or time.sleep(2) or plain(rows)\n"
        f"import time; print(decoded.in_memory(folder(path={str(pictures)!r}, size=8)).sum())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPO) for _ in "12"]
    said = [process.communicate()[0].split() for process in both]
    assert sorted(len(words) for words in said) == [1, 2] and said[0][-1] == said[1][-1]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_broken_file_is_said_and_replaced(read, cache, caplog, content):
    anew, opened = read
    first = in_memory(anew())
    (file,) = cache.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-900] if content is None else content)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(in_memory(anew()), first)
    assert f"{file} is broken" in caplog.text
    opened.clear()
    np.testing.assert_array_equal(in_memory(anew()), first)
    assert len(opened) < 12


def test_a_bit_that_flipped_on_the_disk_is_noticed(read, cache):
    anew, _ = read
    first = in_memory(anew())
    (file,) = cache.glob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(in_memory(anew()), first)


def full(file, *_):
    raise OSError(28, "No space left on device", str(file))


@pytest.mark.parametrize("what", ["alone", "kept", "keep"])
def test_a_cache_that_cannot_be_written_or_read_is_said_and_stops_nothing(read, cache, caplog, monkeypatch, what):
    anew, opened = read
    monkeypatch.setattr(decoded, what, full)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(in_memory(anew()), noise(0, 20, 8, 8, 3))
    assert f"images are not kept decoded in {cache} ([Errno 28] No space left on device" in caplog.text
    assert len(opened) < 32 and not list(cache.glob("*.npz"))


def test_what_is_kept_comes_back_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a.npz"
    assert kept(file) is None
    keep(file, [np.arange(3), np.eye(2)])
    numbers, matrix = kept(file)
    assert numbers.tolist() == [0, 1, 2] and matrix.tolist() == [[1, 0], [0, 1]]

    def half(part, *_):
        part.write_bytes(b"PK")
        full(part)

    with monkeypatch.context() as m, pytest.raises(OSError, match="No space"):
        m.setattr(np, "savez", half)
        keep(file, [np.zeros(9)])
    assert kept(file)[0].tolist() == [0, 1, 2]
    keep(file, [np.zeros(9)])
    assert kept(file)[0].tolist() == [0] * 9 and list(tmp_path.iterdir()) == [file]


def test_the_cache_of_a_user_without_a_home_is_among_the_temporary_files(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(cache_directory("images")) == "/somewhere/.cache/ddpm/images"

    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", unknown)
    assert str(cache_directory("images")) == f"{tempfile.gettempdir()}/ddpm/images"


def test_rows_that_can_be_read_together_are(monkeypatch):
    monkeypatch.setattr(decoded, "BLOCK", 8)
    rows = InBlocks(noise(0, 20, 8, 8, 3))
    np.testing.assert_array_equal(stacked(rows), rows.rows)
    assert sorted(rows.read) == [(0, 7), (8, 15), (16, 19)]


def test_labels_are_integers_of_32_bits_however_they_are_read(monkeypatch):
    monkeypatch.setattr(decoded, "BLOCK", 8)
    of_blocks, of_array = InBlocks(list(range(20))), np.arange(20, dtype=np.uint8)
    for labels in (of_blocks, of_array):
        whole = stacked(Labels(labels))
        assert whole.dtype == np.int32 and whole.tolist() == list(range(20))
    assert len(of_blocks.read) == 3
