import pathlib
import pickle

import numpy as np
import pytest

from ddpm.errors import InputError
from ddpm.evaluation import statistics
from ddpm.evaluation.moments import Moments
from ddpm.interop import plain_pickle

X = np.random.default_rng(0).normal(size=(50, 4))
MU, SIGMA = X.mean(axis=0), np.cov(X, rowvar=False)
IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


def same(moments, mean, cov):
    np.testing.assert_array_equal(moments.mean, mean)
    np.testing.assert_array_equal(moments.cov, cov)


def test_our_own_files_come_back_with_counts_and_provenance(tmp_path):
    path, made = tmp_path / "deep" / "cifar.npz", {"data": "cifar10", "weights": "0cc3"}
    pool, spatial = Moments.of(X), Moments(None, MU[:2], SIGMA[:2, :2])
    statistics.write(path, {"pool": pool, "spatial": spatial}, made)
    found = statistics.read(path)
    assert found.form == "ddpm" and found.provenance == made and set(found.moments) == {"pool", "spatial"}
    assert found.moments["pool"].n == 50 and found.moments["spatial"].n is None
    same(found.moments["pool"], pool.mean, pool.cov)
    same(found.moments["spatial"], MU[:2], SIGMA[:2, :2])
    assert [file.name for file in path.parent.iterdir()] == ["cifar.npz"]


@pytest.mark.parametrize("name", ["cifar", "cifar.pkl", "cifar.npz.old"])
def test_a_name_that_would_not_be_read_back_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} must end with .npz: by that a reference is known to be"):
        statistics.write(tmp_path / name, {"pool": Moments.of(X)}, {})
    assert not list(tmp_path.iterdir())


def test_a_file_whose_record_is_broken_is_named(tmp_path):
    path = tmp_path / "cifar.npz"
    np.savez(path, provenance=np.array("{"))
    with pytest.raises(InputError, match=f"^{path} cannot be read as a .npz file"):
        statistics.read(path)


@pytest.mark.parametrize(
    ("arrays", "form", "taps"),
    [
        ({"mu": MU, "sigma": SIGMA}, "mu, sigma", {"pool"}),
        ({"mu": MU.astype(np.float32), "sigma": SIGMA.astype(np.float32)}, "mu, sigma", {"pool"}),
        ({"mu": MU, "sigma": SIGMA, "mu_s": MU, "sigma_s": SIGMA}, "ADM reference", {"pool", "spatial"}),
        ({"arr_0": IMAGES}, "ADM reference", set()),
        (
            {"arr_0": IMAGES, "mu": MU, "sigma": SIGMA, "mu_s": MU, "sigma_s": SIGMA},
            "ADM reference",
            {"pool", "spatial"},
        ),
        ({"feats": X}, "clean-fid features", {"pool"}),
    ],
    ids=["EDM", "float32", "ADM statistics", "ADM images", "ADM both", "clean-fid KID"],
)
def test_foreign_npz_forms_are_told_apart(tmp_path, arrays, form, taps):
    np.savez(tmp_path / "reference.npz", **arrays)
    found = statistics.read(tmp_path / "reference.npz")
    assert found.form == form and set(found.moments) == taps and found.provenance == {}
    assert (found.images is not None) == ("arr_0" in arrays)
    for moments in found.moments.values():
        np.testing.assert_allclose(moments.mean, MU, rtol=1e-6)
        np.testing.assert_allclose(moments.cov, SIGMA, rtol=1e-6)
        assert moments.n == (50 if "feats" in arrays else None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_edm2_pickles(tmp_path, protocol):
    content = {
        "fid": {"mu": MU, "sigma": SIGMA},
        "fd_dinov2": {"mu": MU[:2], "sigma": np.asfortranarray(SIGMA[:2, :2])},
    }
    content["num"] = [np.float32(1.5), ("a", b"\x00\xff", None, True)]
    path = tmp_path / "reference.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    found = statistics.read(path)
    assert found.form == "EDM2" and set(found.moments) == {"pool", "dinov2"}
    same(found.moments["pool"], MU, SIGMA)
    same(found.moments["dinov2"], MU[:2], SIGMA[:2, :2])
    assert plain_pickle.load(path)["num"] == content["num"]


def test_pickles_of_numpy_1_are_read(tmp_path):
    path = tmp_path / "reference.pkl"
    content = pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}}, protocol=2)
    assert b"numpy._core" in content
    path.write_bytes(content.replace(b"numpy._core", b"numpy.core"))
    same(statistics.read(path).moments["pool"], MU, SIGMA)


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_by_the_name_it_calls(tmp_path, protocol):
    path, touched = tmp_path / "evil.pkl", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"fid": {"mu": Touch(touched)}}, protocol))
    with pytest.raises(
        InputError, match="only pickles of containers and NumPy arrays are read, because others run code"
    ):
        statistics.read(path)
    assert not touched.exists()
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError) as error:
        statistics.read(path)
    assert str(error.value) == (
        f"{path} names os.system: only pickles of containers and NumPy arrays are read, because others run code. Save its "
        "arrays with numpy.savez."
    )


BROKEN = {
    "no covariance": (
        {"mu": MU, "sigma": SIGMA[:3]},
        "mu (4,) and sigma (3, 4) must be [d] and [d, d]. Copy or compute the file again.",
    ),
    "half": ({"mu": MU}, "sigma is missing beside mu. Copy or compute the file again."),
    "not finite": (
        {"mu": MU, "sigma": np.where(np.eye(4) == 1, np.nan, SIGMA)},
        "4 numbers of mu and sigma are NaN or infinite. Copy or compute the file again.",
    ),
    "asymmetric": (
        {"mu": MU, "sigma": np.eye(4) + 0.5 * np.eye(4, k=1)},
        "sigma must be symmetric, and differs from its transpose by up to 0.5. Copy or compute the file again.",
    ),
    "negative": (
        {"mu": MU, "sigma": np.diag([1.0, 1, 1, -0.5])},
        "sigma is no covariance: it has the negative eigenvalue -0.5. Copy or compute the file again.",
    ),
    "text": (
        {"mu": np.array("a"), "sigma": SIGMA},
        "mu or sigma is not numbers. Copy or compute the file again.",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_statistics_is_refused(tmp_path, arrays, message):
    path = tmp_path / "reference.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as error:
        statistics.read(path)
    assert str(error.value) == f"{path}: {message}"


def test_files_of_another_kind_are_refused(tmp_path):
    def message(content):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            statistics.read(path)
        return str(error.value)

    path = tmp_path / "file"
    with pytest.raises(InputError, match="^no statistics file '.*file': give the path of a .npz or .pkl file.$"):
        statistics.read(path)
    np.savez(tmp_path / "a.npz", x=MU)
    whole = (tmp_path / "a.npz").read_bytes()
    assert message(whole) == (
        f"unknown array in {path} (--config.data.npz.array) 'arr_0'. Known: x. Statistics would be mu and sigma, or feats."
    )
    assert "cannot be read as a .npz file" in message(whole[:-30])
    assert "cannot be read as a pickle" in message(b"")
    assert "cannot be read as a pickle" in message(pickle.dumps(MU)[:-20])
    assert message(pickle.dumps([1])) == f"{path} is no EDM2 reference: it must be a dict with fid or fd_dinov2."


@pytest.mark.parametrize("cov", [np.ones((4, 4)), np.zeros((4, 4))], ids=["rank one", "zero"])
def test_a_covariance_without_full_rank_is_one(tmp_path, cov):
    np.savez(tmp_path / "reference.npz", mu=MU, sigma=cov)
    same(statistics.read(tmp_path / "reference.npz").moments["pool"], MU, cov)
