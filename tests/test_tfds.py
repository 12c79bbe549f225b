"""TensorFlow Datasets, read without TensorFlow."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets
from conftest import REPO
from data_sets import BLUE, as_a_set, mistake
from tfds_sets import COLOUR, GREY

from ddpm.data.decoded import in_memory, stacked
from ddpm.data.images import Facts
from ddpm.data.tfds import prepare, tfds


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepares one of the sets above, once, and says where; TFDS needs no TensorFlow for that."""
    data_dir = str(tmp_path_factory.mktemp("tfds"))

    def prepared(dataset):
        path = f"{data_dir}/{dataset}/1.0.0"
        for _ in range(2):  # the second time it is there
            assert prepare(dataset=dataset, data_dir=data_dir) == f"{dataset} is prepared in {path}"
        return dict(dataset=dataset, data_dir=data_dir)

    return prepared


def test_labels_are_the_classes_of_the_images(prepared):
    for split, images in (("train", COLOUR[:20]), ("test", COLOUR[20:])):
        read = tfds(**prepared("ddpm_colour"), split=split)
        answer = {image.tobytes(): i % 2 for i, image in enumerate(images)}
        assert read.classes == ("cat", "dog")
        assert [answer[read.images[i].tobytes()] for i in range(len(images))] == list(read.labels)
    assert tfds(**prepared("ddpm_grey")).labels is None


def test_a_set_is_known_by_its_records_without_decoding_one(prepared, monkeypatch):
    where = prepared("ddpm_colour")
    train, head = (tfds(split=split, **where) for split in ("train", "train[:19]"))
    names = {train.sha256, head.sha256, tfds(split="test", **where).sha256, tfds(size=4, **where).sha256}
    assert len(names) == 4 and tfds(split="train", **where).sha256 == train.sha256
    for reading in ("__getitem__", "__getitems__"):
        monkeypatch.setattr(type(train.images), reading, None)
    assert len(list(train.images.digests())) == 20


def test_records_read_together_are_those_read_one_by_one(prepared):
    dataset = tfds(**prepared("ddpm_colour"))
    np.testing.assert_array_equal(stacked(dataset.images), list(dataset.images))
    assert stacked(dataset.labels).tolist() == list(dataset.labels)


def test_a_broken_record_among_many_is_named(prepared, monkeypatch):
    dataset = tfds(**prepared("ddpm_colour"))

    def broken(indices):
        raise RuntimeError("Corrupted chunk")

    monkeypatch.setattr(dataset.images.source, "__getitems__", broken, raising=False)
    monkeypatch.setattr(type(dataset.images.source), "__getitem__", lambda _, i: broken(i))
    assert mistake(lambda: dataset.images.__getitems__(range(3, 8))).startswith("one of records 3 to 7 in ")
    assert mistake(lambda: dataset.images[3]).startswith("record 3 in ")


def test_tfds_reads_what_was_written(prepared):
    where = prepared("ddpm_colour")
    train, test = tfds(split="train", **where), tfds(split="test", **where)
    assert train.facts == Facts((6, 7, 3), 20, ("cat", "dog"))
    assert test.facts == Facts((6, 7, 3), 10, ("cat", "dog"))
    assert as_a_set(train.images) == as_a_set(COLOUR[:20])
    assert as_a_set(in_memory(test)) == as_a_set(COLOUR[20:])
    grey = tfds(**prepared("ddpm_grey"))
    assert grey.facts == Facts((8, 8, 1), 4, ())
    assert as_a_set(grey.images) == as_a_set(GREY)


@pytest.mark.parametrize(
    ("split", "count"),
    [("train[:90%]", 18), ("train[5:]", 15), ("train+test", 30), ("train[:3]+test[2:4]", 5), ("all", 30)],
)
def test_tfds_reads_parts_of_splits(prepared, split, count):
    read = tfds(split=split, **prepared("ddpm_colour"))
    assert read.facts.count == len(set(as_a_set(read.images))) == count


def test_tfds_resizes_images_of_many_sizes(prepared):
    read = tfds(size=10, **prepared("ddpm_sizes"))
    assert read.facts == Facts((10, 10, 3), 3, ())
    assert (in_memory(read)[:, 3:7, 3:7] == np.array(BLUE)).all()
    assert tfds(size=4, **prepared("ddpm_grey")).facts == Facts((4, 4, 1), 4, ())
    assert (tfds(size=4, **prepared("ddpm_transparent")).images[0] == (255, 204, 204)).all()


def test_tfds_says_which_images_it_cannot_use(prepared):
    assert mistake(tfds, **prepared("ddpm_sizes")) == (
        "images of 'ddpm_sizes' differ in size: give --config.data.tfds.size, such as 64."
    )
    assert mistake(tfds, **prepared("ddpm_words")) == (
        "data set 'ddpm_words' has no feature 'image', only text, number."
    )
    assert mistake(tfds, size=8, **prepared("ddpm_floats")) == (
        "feature 'image' of 'ddpm_floats' is Tensor(shape=(8, 8, 1), dtype=float32); it must be uint8 [height, width, "
        "channels]."
    )
    assert mistake(tfds, size=-1, **prepared("ddpm_colour")) == (
        "size = -1: --config.data.tfds.size must be at least 1, or 0 to leave the images as they are."
    )


def test_tfds_set_that_is_not_prepared_is_told_at_once_and_offline(tmp_path, offline, caplog):
    since = time.monotonic()
    for dataset, version in (
        ("cifar10", "3.0.2"),
        ("imagenet_resized/64x64", "0.1.0"),
        ("ddpm_never_prepared", "1.0.0"),
    ):
        assert re.sub(r"\d+\.\d+\.\d+", version, mistake(tfds, dataset=dataset, data_dir=str(tmp_path))) == (
            f"data set '{dataset}' is not prepared in {tmp_path}/{dataset}/{version}. "
            "Run the same command with --mode prepare, or give --config.data.tfds.data_dir."
        )
    assert time.monotonic() - since < 3
    assert not offline and not caplog.records


def test_an_unknown_tfds_set_names_the_nearest(tmp_path, offline):
    known = len(tensorflow_datasets.list_builders(with_community_datasets=False))
    for wrong, nearest in (("cifar", "cifar10"), ("ddpm_color", "ddpm_colour"), ("fashon_mnist", "fashion_mnist")):
        for unknown in (functools.partial(tfds, split="train"), prepare):
            said = mistake(unknown, dataset=wrong, data_dir=str(tmp_path))
            assert said.startswith(
                f"unknown TFDS data set '{wrong}'. Did you mean '{nearest}'? Near to it: {nearest}"
            ) and said.endswith(f"; {known} are known.")
    assert mistake(tfds, dataset="").startswith("unknown TFDS data set ''. ")
    assert mistake(tfds, dataset="huggingface:mnist").startswith("unknown TFDS data set 'huggingface:mnist'. ")
    assert not offline


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("cifar10:9.9.9", r"Dataset cifar10 cannot be loaded at version 9\.9\.9, only: .*"),
        ("imagenet_resized/65x65", r"BuilderConfig 65x65 not found .* 64x64:.*"),
        ("cifar10:1", r"Parsing builder name string cifar10:1 failed\. .*"),
    ],
)
def test_a_wrong_version_or_config_of_a_tfds_set_is_named(tmp_path, dataset, reason):
    told = mistake(tfds, dataset=dataset, data_dir=str(tmp_path))
    assert re.fullmatch(rf"TFDS cannot open '{dataset}' in {re.escape(str(tmp_path))}: .*{reason}", told)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "unknown split of ddpm_colour 'trian'. Did you mean 'train'? Known: test, train."),
        ("trian[:5]", "unknown split of ddpm_colour 'trian[:5]'. Did you mean 'train'? Known: test, train."),
        ("train+validation", "unknown split of ddpm_colour 'validation'. Known: test, train."),
        ("", "unknown split of ddpm_colour ''. Known: test, train."),
    ],
)
def test_an_unknown_tfds_split_names_the_nearest(prepared, split, message):
    assert mistake(tfds, split=split, **prepared("ddpm_colour")) == message


@pytest.mark.parametrize("split", ["train[", "train[a]", "train[:0]", "train[20:]", "train[:21]", "train[5:3]"])
def test_a_tfds_split_that_is_malformed_or_empty_is_named(prepared, split):
    told = mistake(tfds, split=split, **prepared("ddpm_colour"))
    assert re.fullmatch(
        rf"split '{re.escape(split)}' of ddpm_colour is empty or malformed \(.+\)\. Write it like 'train\[:90%\]'; "
        "images: train 20, test 10.",
        told,
    )


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of ddpm_colour to spoil."""
    where = prepared("ddpm_colour")
    path = tmp_path / "ddpm_colour" / "1.0.0"
    shutil.copytree(f"{where['data_dir']}/ddpm_colour/1.0.0", path)
    return path, dict(dataset="ddpm_colour", data_dir=str(tmp_path))


def test_a_tfds_set_in_another_format_or_incomplete_is_told(copied):
    path, where = copied
    remedy = (
        "not one in array_record. Remove that folder or choose another --config.data.tfds.data_dir, and run the same "
        "command with --mode prepare."
    )
    info = path / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    for function in (tfds, prepare):
        assert mistake(function, **where) == f"{path} holds a set in the format tfrecord, {remedy}"
    info.unlink()
    for function in (tfds, prepare):
        assert mistake(function, **where) == f"{path} holds no complete set, {remedy}"


def test_a_broken_tfds_record_is_named(copied):
    path, where = copied
    records = path / "ddpm_colour-train.array_record-00000-of-00001"
    records.write_bytes(records.read_bytes()[:-100])
    assert re.fullmatch(
        rf"record \d+ in {re.escape(str(path))} cannot be read \(Corrupted .+\)\. "
        r"Remove that folder and run the same command with --mode prepare\.",
        mistake(tfds, **where),
    )


def test_nothing_imports_tensorflow_and_a_prepared_set_needs_no_code_of_its_own(prepared, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise RuntimeError('imported')")
    where = prepared("ddpm_colour")
    code = f"""
import sys
from ddpm.data.pipeline import grain_batches, in_memory
from ddpm.data.tfds import prepare, tfds
from ddpm.errors import InputError
read = tfds(**{where})
print(read.facts.shape, read.facts.count, read.facts.classes)
print(in_memory(read).shape, next(grain_batches(read, 0, 8, 0)).pixels.shape)
for wrong in (dict(dataset="cifar"), dict(dataset="cifar10"), dict(dataset="ddpm_colour", split="trian")):
    try:
        tfds(data_dir={where["data_dir"]!r}, **wrong)
    except InputError as error:
        print(str(error)[:20])
prepare(**{where})
print([name for name in sys.modules if name.split(".")[0] in ("tensorflow", "torch")])
"""
    path = os.pathsep.join([str(tmp_path), str(REPO)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "(6, 7, 3) 20 ('cat', 'dog')",
        "(20, 6, 7, 3) (8, 6, 7, 3)",
        "unknown TFDS data se",
        "data set 'cifar10' i",
        "unknown split of ddp",
        "[]",
    ]


DATA_DIR = os.environ.get("DDPM_TFDS_DIR", "")


@pytest.mark.skipif(not os.path.isdir(f"{DATA_DIR}/cifar10"), reason="DDPM_TFDS_DIR names no directory with cifar10")
def test_cifar10_is_cifar10():
    read = tfds(dataset="cifar10", split="train", data_dir=DATA_DIR)
    assert read.facts.shape == (32, 32, 3) and read.facts.count == 50_000 and len(read.facts.classes) == 10
    mean = in_memory(read).mean((0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
