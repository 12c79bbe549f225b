"""Latents of a data set: what is kept is what the autoencoder says, whole, scaled, and of nothing else."""

import json

import numpy as np
import pytest
from data_sets import mistake, noise

from ddpm.data import latents
from ddpm.data.images import Dataset, Scale

ABOUT = {"autoencoder": {"path": "ae", "sha256": "0" * 16}, "data": {"name": "noise:train"}}
IMAGES = Dataset(noise(0, 10, 4, 6, 3), ("a", "b"), np.arange(10) % 2, [f"picture {i}" for i in range(10)])


def half(images):
    """Latents of half the size: block means, far from zero, of unequal spread."""
    means = images.astype(np.float32).reshape(len(images), 2, 2, 3, 2, 3).mean(axis=(2, 4))
    return means * np.float32([1, 2, 0.5]) / 64 + np.float32([3, 0, -1])


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latents, "SHARD", 4)


def encoded(folder, images=IMAGES, encode=half, about=ABOUT, scale=None):
    return latents.encode_to(folder, images, encode, about=about, scale=scale, progress=lambda line: None)


def test_latents_are_read_with_mean_zero_and_deviation_one_of_each_channel(tmp_path):
    scale = encoded(tmp_path)
    read, about = latents.read(tmp_path, "encode")
    rows = np.stack([read.images[i] for i in range(len(read.images))])
    true = half(IMAGES.images)
    np.testing.assert_allclose(scale.mean, true.mean(axis=(0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(scale.std, true.std(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(rows.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=(0, 1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(scale.up(rows), true, atol=2e-3)  # half precision
    assert about == ABOUT and read.facts.shape == (2, 3, 3) and read.facts.scale == scale and rows.dtype == np.float32


def test_labels_and_captions_come_along(tmp_path):
    encoded(tmp_path)
    read, _ = latents.read(tmp_path, "encode")
    assert read.classes == ("a", "b") and list(read.captions) == IMAGES.captions
    np.testing.assert_array_equal(read.labels, IMAGES.labels)
    encoded(tmp_path / "bare", Dataset(IMAGES.images))
    bare, _ = latents.read(tmp_path / "bare", "encode")
    assert bare.labels is None and bare.captions is None and bare.classes == ()


def test_a_known_scale_is_kept(tmp_path):
    known = Scale((0.1, 0.2, 0.3), (2.0, 2.0, 2.0), "0" * 16)
    assert encoded(tmp_path, scale=known) == known == latents.read(tmp_path, "encode")[0].scale


def test_an_interrupted_command_goes_on_with_the_next_shard(tmp_path):
    asked = []

    def stops_at_the_third(images):
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return half(images)

    with pytest.raises(KeyboardInterrupt):
        encoded(tmp_path, encode=stops_at_the_third)
    assert mistake(latents.read, tmp_path, "run it again") == (
        f"no latents in {str(tmp_path)!r}, or not all of them: run it again."
    )
    asked.clear()
    encoded(tmp_path, encode=lambda images: asked.append(len(images)) or half(images))
    assert asked == [2]
    at_once = tmp_path / "at_once"
    encoded(at_once)
    for file in sorted(at_once.glob("*.npy")):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_a_shard_that_was_damaged_is_made_anew_and_what_follows_it(tmp_path):
    encoded(tmp_path)
    (tmp_path / latents.RECORD).unlink()
    (tmp_path / "000000004.npy").write_bytes(b"nothing")
    asked = []
    encoded(tmp_path, encode=lambda images: asked.append(len(images)) or half(images))
    assert asked == [4, 2]
    assert latents.read(tmp_path, "encode")[0].images[5].shape == (2, 3, 3)


def test_shards_that_are_listed_twice_or_out_of_turn_are_made_anew(tmp_path):
    encoded(tmp_path)
    (tmp_path / latents.RECORD).unlink()
    listed = tmp_path / latents.SHARDS
    first, *others = listed.read_text().splitlines(keepends=True)
    listed.write_text(first + first + "".join(others))
    encoded(tmp_path)
    read, _ = latents.read(tmp_path, "encode")
    np.testing.assert_allclose(read.scale.up(read.images[5]), half(IMAGES.images)[5], atol=2e-3)


def test_two_commands_do_not_write_to_one_folder(tmp_path):
    told = []

    def meanwhile(images):
        told.append(mistake(encoded, tmp_path))
        return half(images)

    encoded(tmp_path, encode=meanwhile)
    assert set(told) == {f"another command writes latents to {tmp_path}: wait for it, or give another latents.path."}


@pytest.mark.parametrize("name", ["000000004.npy", latents.TOLD, latents.RECORD])
@pytest.mark.parametrize("change", ["gone", "last byte", "a figure"])
def test_latents_that_were_damaged_are_not_read(tmp_path, name, change):
    encoded(tmp_path)
    file = tmp_path / name
    if change == "gone" and name != latents.RECORD:
        file.unlink()
    elif change == "a figure" and name == latents.RECORD:
        record = json.loads(file.read_text())
        record["scale"]["std"][0] += 1
        file.write_text(json.dumps(record))
    else:
        file.write_bytes(file.read_bytes()[:-1])
    said = mistake(latents.read, tmp_path, "encode again")
    differs = f"{file} is missing or differs from its checksum. Remove {tmp_path / 'latents.json'} and encode again."
    assert said == differs or said.startswith(f"{file} cannot be read (")


def test_latents_of_other_data_or_another_autoencoder_are_not_mixed(tmp_path):
    encoded(tmp_path)
    other = json.loads(json.dumps(ABOUT))
    other["autoencoder"] = {"path": "other", "sha256": "1" * 16}
    assert mistake(encoded, tmp_path, about=other) == (
        f"{tmp_path} holds latents of noise:train by ae ({'0' * 16}), not of noise:train by other ({'1' * 16}): give another "
        "latents.path, or remove it."
    )


def test_latents_that_are_not_finite_are_refused(tmp_path):
    assert mistake(encoded, tmp_path, encode=lambda images: half(images) * np.nan) == (
        "latents of images 0 to 3 are not finite: the autoencoder does not fit them."
    )
