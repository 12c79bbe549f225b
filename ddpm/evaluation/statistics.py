"""Files of reference statistics: our own, and those that papers' figures were computed with."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from numpy.lib.npyio import NpzFile

from ddpm.data.npz import npz
from ddpm.errors import InputError
from ddpm.evaluation.moments import Moments
from ddpm.evaluation.points import as_points
from ddpm.interop import plain_pickle

# The tap of the network that features come from: Inception's pool [2048], its 7 first channels of mixed_6/conv [2023]
# (for sFID), DINOv2 [1024]; by the array names of ADM and the metric names of EDM2.
FOREIGN_TAPS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
EDM2_TAPS = {"fid": "pool", "fd_dinov2": "dinov2"}
SLACK = 1e-4  # of a covariance computed in float32: how asymmetric or negative it may be, relative to its largest entry


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """What a file holds.

    Attributes:
      form: which kind of file it is, in words.
      moments: by tap. Only our own files say how many images they come from; n is None for the others.
      images: uint8 [n, height, width, channels], of an ADM reference batch or any other file of images.
      features: [n, 2048], of clean-fid's KID files.
      provenance: of our own files: how they were made.
    """

    form: str
    moments: dict[str, Moments]
    images: np.ndarray | None = None
    features: np.ndarray | None = None
    provenance: dict = dataclasses.field(default_factory=dict)


def write(path: str | pathlib.Path, moments: Mapping[str, Moments], provenance: dict) -> None:
    """Writes moments by tap with a JSON record of how they were made; the file is whole or not there.

    Raises:
      InputError: a name that does not end with .npz.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix != ".npz":
        raise InputError(f"{path} must end with .npz: by that a reference is known to be a file of statistics.")
    arrays = {"provenance": np.array(json.dumps(provenance))}
    for tap, of_tap in moments.items():
        arrays |= {f"{tap}.n": of_tap.n or 0, f"{tap}.mean": of_tap.mean, f"{tap}.cov": of_tap.cov}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def read(path: str | pathlib.Path) -> Statistics:
    """Reads statistics of any of these forms, told apart by what is in the file.

    - ours: of `write`;
    - .npz of `mu`, `sigma`: EDM, pytorch-fid, clean-fid; with `mu_s`, `sigma_s` (spatial) and `arr_0` (images): ADM;
    - .npz of images alone: whatever `ddpm.data.npz` reads;
    - .npz of `feats`: clean-fid's features for KID;
    - .pkl of {"fid": {"mu", "sigma"}, "fd_dinov2": ...}: EDM2. Nothing in it is executed.

    Raises:
      InputError: no such file, another form, or a mean and covariance that cannot be such.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no statistics file {str(path)!r}: give the path of a .npz or .pkl file.")
    with file.open("rb") as opened:
        is_zip = opened.read(2) == b"PK"
    return _from_npz(file) if is_zip else _from_edm2(file)


def _from_npz(path: pathlib.Path) -> Statistics:
    try:
        with NpzFile(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
        provenance = json.loads(str(arrays["provenance"])) if "provenance" in arrays else None
    except Exception as error:  # of many kinds: zipfile's, zlib's, NumPy's, tokenize's, json's
        raise InputError(f"{path} cannot be read as a .npz file ({error}). Copy or compute it again.") from error
    if provenance is not None:
        taps = [name.removesuffix(".n") for name in arrays if name.endswith(".n")]
        moments = {tap: _moments(path, arrays, f"{tap}.mean", f"{tap}.cov", int(arrays[f"{tap}.n"])) for tap in taps}
        return Statistics("ddpm", moments, provenance=provenance)
    moments = {tap: _moments(path, arrays, *names) for tap, names in FOREIGN_TAPS.items() if names[0] in arrays}
    if "feats" in arrays:
        features = as_points(arrays["feats"], f"{path}: feats", 2)
        return Statistics("clean-fid features", {"pool": Moments.of(features)}, features=features)
    images = None
    if "arr_0" in arrays or not moments:
        try:
            images = npz(path=str(path)).images
        except InputError as error:
            raise InputError(f"{error} Statistics would be mu and sigma, or feats.") from error
    return Statistics("ADM reference" if images is not None or "spatial" in moments else "mu, sigma", moments, images)


def _from_edm2(path: pathlib.Path) -> Statistics:
    content = plain_pickle.load(path)
    if not isinstance(content, dict) or not any(isinstance(content.get(metric), dict) for metric in EDM2_TAPS):
        raise InputError(f"{path} is no EDM2 reference: it must be a dict with {' or '.join(EDM2_TAPS)}.")
    taps = {tap: content[metric] for metric, tap in EDM2_TAPS.items() if metric in content}
    return Statistics("EDM2", {tap: _moments(path, arrays, "mu", "sigma") for tap, arrays in taps.items()})


def _moments(path: pathlib.Path, arrays: Mapping, mean_name: str, cov_name: str, n: int = 0) -> Moments:
    def wrong(rule: str) -> InputError:
        return InputError(f"{path}: {rule}. Copy or compute the file again.")

    for name in (mean_name, cov_name):
        if name not in arrays:
            raise wrong(f"{name} is missing beside {mean_name if name == cov_name else cov_name}")
    try:
        mean, cov = (np.asarray(arrays[name], np.float64) for name in (mean_name, cov_name))
    except (TypeError, ValueError):
        raise wrong(f"{mean_name} or {cov_name} is not numbers") from None
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise wrong(f"{mean_name} {mean.shape} and {cov_name} {cov.shape} must be [d] and [d, d]")
    broken = int((~np.isfinite(mean)).sum() + (~np.isfinite(cov)).sum())
    if broken:
        raise wrong(f"{broken} numbers of {mean_name} and {cov_name} are NaN or infinite")
    scale = SLACK * np.abs(cov).max(initial=0)
    asymmetry = np.abs(cov - cov.T).max(initial=0)
    if asymmetry > scale:
        raise wrong(f"{cov_name} must be symmetric, and differs from its transpose by up to {asymmetry:.3g}")
    try:
        np.linalg.cholesky(cov + (scale + np.finfo(float).tiny) * np.eye(len(cov)))
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(cov)[0]
        raise wrong(f"{cov_name} is no covariance: it has the negative eigenvalue {lowest:.3g}") from None
    return Moments(n or None, mean, cov)
