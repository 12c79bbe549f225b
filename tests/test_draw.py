"""Many images into one file: it can be interrupted."""

import numpy as np
import pytest

from ddpm.draw import draw_to
from ddpm.errors import InputError
from ddpm.sampling.batched import Batch


class Sampler:
    """Stands for a sampler: image i is filled with i; stops after `stop` batches, as a cut-off job."""

    def __init__(self, stop=None, broken=()):
        self.stop, self.broken, self.firsts = stop, broken, []

    def batches(self, first, num):
        self.firsts.append(first)
        for done, start in enumerate(range(first, num, 4)):
            if done == self.stop:
                raise KeyboardInterrupt
            indices = np.arange(start, min(start + 4, num))
            images = np.broadcast_to(indices[:, None, None, None], (len(indices), 8, 8, 1)).astype(np.uint8)
            yield Batch(images, np.array([i not in self.broken for i in indices]), indices % 2 + 10)


def draw(out, sampler, num=10, seed=0):
    said = []
    drawn = draw_to(
        out, lambda first, last: sampler.batches(first, last), num, about={"seed": seed}, progress=said.append
    )
    return drawn, said


def test_an_interrupted_job_goes_on_where_it_stopped(tmp_path):
    out, sampler = tmp_path / "x.npz", Sampler(stop=2)
    with pytest.raises(KeyboardInterrupt):
        draw(out, sampler)
    assert not out.exists()
    sampler.stop = None
    (head, nfe), said = draw(out, sampler)
    assert sampler.firsts == [0, 8] and said[0].startswith("8/10 images are in ")
    with np.load(out) as file:
        assert file.files == ["arr_0"]
        np.testing.assert_array_equal(file["arr_0"][:, 0, 0, 0], range(10))
        np.testing.assert_array_equal(head, file["arr_0"])
    assert nfe == 10.5 and [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_other_settings_do_not_go_on_from_there(tmp_path):
    out, sampler = tmp_path / "x.npz", Sampler(stop=2)
    with pytest.raises(KeyboardInterrupt):
        draw(out, sampler)
    sampler.stop = None
    draw(out, sampler, seed=1)
    assert sampler.firsts == [0, 0]
    draw(out, sampler)  # and the first job is still there to go on with
    assert sampler.firsts == [0, 0, 8] and [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_the_first_64_are_returned_for_a_picture(tmp_path):
    (head, _), _ = draw(tmp_path / "x.npz", Sampler(), num=70)
    np.testing.assert_array_equal(head[:, 0, 0, 0], range(64))


def test_images_that_are_not_finite_are_told_of(tmp_path, caplog):
    draw(tmp_path / "x.npz", Sampler(broken=(2, 9)))
    assert "2 of 10 images are not finite" in caplog.text


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        draw(tmp_path / "x.png", Sampler())
    assert (
        str(caught.value)
        == f"--out={tmp_path}/x.png must be a file that ends with .npz, the kind that samples are written to."
    )
