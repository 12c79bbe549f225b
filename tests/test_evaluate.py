"""Evaluation by a configuration: its figures, what they say of themselves, what is refused and when."""

import dataclasses
import hashlib

import numpy as np
import pytest
from conftest import TINY, run
from data_sets import mistake, noise
from PIL import Image

from ddpm import evaluate, objective
from ddpm.data.images import Dataset
from ddpm.errors import InputError
from ddpm.evaluation import bits_per_dim, metrics, records, sources, statistics
from ddpm.evaluation.features.pixels import pixels
from ddpm.likelihood import likelihood
from ddpm.names import public
from ddpm.sampling.batched import Batch, BatchedSampler

IMAGES = noise(0, 150, 8, 8, 1)


@pytest.fixture(autouse=True)
def no_cache_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def evaluator(tiny, dataset, **changes):
    tiny.evaluation.update(num=0, **changes)
    tiny.evaluation.features.name = "pixels"
    return evaluate.Evaluator(tiny, dataset)


def test_a_set_against_itself(tiny):
    compare = evaluator(tiny, Dataset(IMAGES), metrics=("fid", "kid", "pr", "dc", "drift"), num_reference=0)
    figures = compare(compare.images(""))["figures"]
    assert figures["fd"] == pytest.approx(0, abs=1e-6) and "fid" not in figures  # that name is Inception's
    assert figures["precision"] == figures["recall"] == figures["coverage"] == 1
    assert figures["mean_drift_grey"] == figures["spread_drift_grey"] == 0 and figures["sharpness"] == 1


def test_copies_of_real_images_are_found(tiny, tmp_path):
    generated = np.concatenate([IMAGES[:30], noise(3, 90, 8, 8, 1)])
    np.savez(tmp_path / "x.npz", arr_0=generated)
    compare = evaluator(tiny, Dataset(IMAGES), metrics=("memorisation",), num_reference=0)
    assert compare(compare.images(str(tmp_path / "x.npz")))["figures"]["memorised"] == 30 / 120


def test_every_figure_says_how_it_was_made(tiny):
    compare = evaluator(tiny, Dataset(IMAGES), num_reference=100)
    made = compare(compare.images(""))["provenance"]
    assert made["features"] == {"name": "pixels", "sha256": "-", "rule": "pixels in [0, 1], as they are"}
    assert made["reference"]["num"] == 100 and made["reference"]["of"] == 150 and made["generated"]["num"] == 150
    assert len(made["reference"]["pixels_sha256"]) == 16 and "jax" in made["versions"] and made["date"]


def test_statistics_of_our_own_are_a_reference(tiny, tmp_path):
    compare = evaluator(tiny, Dataset(IMAGES), metrics=("fid",), num_reference=0)
    compare.write_statistics(tmp_path / "real.npz", compare.images(""))
    other = Dataset(noise(4, 100, 8, 8, 1))
    direct = compare(evaluator(tiny, other, metrics=("fid",)).images(""))
    tiny.evaluation.reference = str(tmp_path / "real.npz")
    by_file = evaluator(tiny, other, metrics=("fid",))
    record = by_file(by_file.images(""))
    assert record["figures"]["fd"] == pytest.approx(direct["figures"]["fd"], rel=1e-9)
    made = record["provenance"]["reference"]
    assert made["num"] == 150 and made["name"] == str(tmp_path / "real.npz")
    assert made["sha256"] == hashlib.sha256((tmp_path / "real.npz").read_bytes()).hexdigest()[:16]
    assert made["images"] == compare.reference.about and made["images"]["shape"] == [8, 8, 1]
    assert by_file.reference.shape == compare.reference.shape == (8, 8, 1)
    needy = evaluator(tiny, other, metrics=("pr",))
    assert mistake(lambda: needy(needy.images(""))).startswith(f"pr needs images or features; {tmp_path / 'real.npz'} ")
    content = statistics.read(tmp_path / "real.npz")
    about = content.provenance | {"features": {"name": "inception", "sha256": "1", "rule": "2"}}
    statistics.write(tmp_path / "other.npz", content.moments, about)
    tiny.evaluation.reference = str(tmp_path / "other.npz")
    wrong = evaluator(tiny, other, metrics=("fid",))
    assert "was made with inception (name 'inception'), not with pixels" in mistake(lambda: wrong(wrong.images("")))


def test_images_of_another_shape_are_refused(tiny, tmp_path):
    np.savez(tmp_path / "x.npz", arr_0=noise(0, 20, 8, 8, 3))
    compare = evaluator(tiny, Dataset(IMAGES), num_reference=0)
    assert mistake(lambda: compare(compare.images(str(tmp_path / "x.npz")))).endswith(
        "x.npz holds images of (8, 8, 3), digits:train of (8, 8, 1) (height, width, channels): no figure compares them. "
        "Resize or convert one of them, and say so."
    )
    (tmp_path / "colour").mkdir()
    for i, image in enumerate(noise(0, 20, 8, 8, 3)):  # nor made grey without a word
        Image.fromarray(image).save(tmp_path / "colour" / f"{i}.png")
    told = mistake(lambda: compare(compare.images(str(tmp_path / "colour"))))
    assert told.startswith(f"{tmp_path / 'colour'} holds images of (8, 8, 3), digits:train of (8, 8, 1) ")
    large = evaluator(tiny, Dataset(noise(0, 90, 16, 16, 1)), num_reference=0)
    large.write_statistics(tmp_path / "large.npz", large.reference)
    against = evaluator(tiny, Dataset(IMAGES), metrics=("fid",), reference=str(tmp_path / "large.npz"))
    told = mistake(lambda: against(against.images("")))
    assert told.startswith(f"digits:train holds images of (8, 8, 1), {tmp_path / 'large.npz'} of (16, 16, 1) ")


def test_too_few_images_are_warned_of_with_the_bias(tiny, caplog):
    compare = evaluator(tiny, Dataset(IMAGES[:50]), metrics=("fid",), num_reference=0)
    compare(compare.images(""))
    assert "fid: 50 images give a covariance of 64 features a rank of 49 at most" in caplog.text


def test_unknown_metrics_are_named_before_anything_is_computed(tiny):
    told = "unknown metric 'fidd'. Did you mean 'fid'? Known: dc, drift, fid, fid_infinity, "
    assert mistake(evaluator, tiny, Dataset(IMAGES), metrics=("fidd",)).startswith(told)


def test_the_best_checkpoint_is_by_a_metric_that_is_computed(tiny):
    assert evaluate.best_figure(tiny.evaluation) == "fd"
    tiny.evaluation.best = "kid"
    assert mistake(evaluate.best_figure, tiny.evaluation) == (
        "evaluation.best = 'kid' is not among evaluation.metrics = ('fid', 'pr'); '' keeps no best checkpoint."
    )


def test_copies_are_searched_for_in_all_training_images_whatever_the_reference(tiny, tmp_path):
    np.savez(tmp_path / "copies.npz", arr_0=IMAGES)
    np.savez(tmp_path / "held_out.npz", arr_0=noise(9, 60, 8, 8, 1))
    for changes in ({"num_reference": 20}, {"num_reference": 0, "reference": str(tmp_path / "held_out.npz")}):
        compare = evaluator(tiny, Dataset(IMAGES), metrics=("memorisation",), **changes)
        record = compare(compare.images(str(tmp_path / "copies.npz")))
        assert record["figures"]["memorised"] == 1
        told = record["provenance"]["metrics"]["memorisation"]
        assert told["threshold"] == 1 / 3 and told["training"]["num"] == 150
        assert record["provenance"]["reference"]["num"] < 150


def test_all_images_are_taken_but_where_a_number_is_asked_for(tiny):
    compare = evaluator(tiny, Dataset(IMAGES))
    tiny.evaluation.num = 1000  # of samples: no folder is cut to it, nor refused for it
    assert compare.images("").about["num"] == 150 and compare.images("", 30).about["num"] == 30


def never(first):
    raise AssertionError("an image was drawn before the mistake was told")


def refusal(compare, num=40, shape=(8, 8, 1)):
    source = sources.Source({"name": "run"}, num, shape, never, never)
    return mistake(compare.samples, source, None)


def test_what_cannot_be_computed_is_told_before_an_image_is_drawn(tiny, tmp_path):
    data, reference = Dataset(IMAGES), str(tmp_path / "real.npz")
    compare = evaluator(tiny, data, metrics=("fid", "fid_infinity"), num_reference=0)
    assert refusal(compare) == "fid_infinity needs 130 images or more, and there are 40 of run."
    assert refusal(compare, 200, (8, 8, 3)).startswith(
        "run holds images of (8, 8, 3), digits:train of (8, 8, 1) (height"
    )
    compare.write_statistics(tmp_path / "real.npz", compare.images(""))
    for metric, needs in (("pr", "images or features"), ("drift", "images")):
        told = refusal(evaluator(tiny, data, metrics=("fid", metric), reference=reference))
        assert told.startswith(f"{metric} needs {needs}; ")
    np.savez(reference, mu=np.zeros(2048), sigma=np.eye(2048))
    told = refusal(evaluator(tiny, data, metrics=("fid",), reference=reference))
    assert told.startswith("2048 and 64 features an image cannot be compared")
    np.savez(reference, arr_0=IMAGES[:3])
    told = refusal(evaluator(tiny, data, metrics=("fid", "pr"), reference=reference))
    assert told == f"pr needs 4 images or more, and there are 3 of {reference}."
    told = refusal(evaluator(tiny, data, metrics=("sfid",), reference=""))
    assert told == (
        "feature network pixels has no 'spatial', only pool. Without it there is no sfid: choose another network."
    )


def test_a_misspelt_network_or_reference_is_told_at_once(tiny, tmp_path):
    (tmp_path / "broken.npz").write_text("no archive")
    for reference, told in (
        ("nosuch.npz", "no statistics file 'nosuch.npz'"),
        (f"{tmp_path}/broken.npz", str(tmp_path)),
    ):
        assert mistake(evaluator, tiny, Dataset(IMAGES), reference=reference).startswith(told)
    tiny.evaluation.reference, tiny.evaluation.features.name = "", "pixel"
    told = mistake(evaluate.Evaluator, tiny, Dataset(IMAGES))
    assert told.startswith("unknown feature network 'pixel'. Did you mean 'pixels'? Known: classifier, ")


def test_weights_without_classes_name_those_that_have_some(tiny, monkeypatch):
    headless = dataclasses.replace(pixels(), name="inception")
    monkeypatch.setattr(evaluate.build, "feature_network", lambda *_: headless)
    told = refusal(evaluator(tiny, Dataset(IMAGES), metrics=("inception_score",)))
    assert "has no class head" not in told.partition(":")[0] and "--inception PATH takes one that has: torch" in told


def test_a_metric_is_none_by_accident():
    assert sorted(public(metrics)) == sorted(
        ("fid", "fid_infinity", "sfid", "kid", "inception_score", "pr", "dc", "drift", "memorisation")
    )
    for metric in public(metrics).values():
        assert metric.generated in ("moments", "features", "pixels") and metric.against in ("reference", "training")


def test_flat_real_images_have_no_sharpness_to_compare_with(tiny):
    flat = np.full((20, 8, 8, 1), 7, np.uint8)
    compare = evaluator(tiny, Dataset(flat), metrics=("fid", "drift"), num_reference=0)
    figures = compare(compare.images(""))["figures"]
    assert "sharpness" not in figures and figures["mean_drift_grey"] == 0 and "fd" in figures


def test_the_spelling_of_a_run_is_not_what_its_samples_are_known_by(tiny, tmp_path):
    class Sampler(BatchedSampler):
        def __init__(self):
            self.image_shape = (8, 8, 1)

        def batches(self, params, num, *, seed, first):
            drawn.append(first)
            yield Batch(IMAGES[first:num], np.ones(num - first, bool), np.full(num - first, 3))

    drawn = []
    about = dict(step=5, num=40, seed=0, when="afterwards")
    for name in ("runs/a", "/elsewhere/runs/a"):
        source = evaluate.of_run(Sampler(), {}, tiny, tmp_path / "samples", name=name, **about)
        assert source.about["name"] == name and sum(map(len, source.read(0))) == 40
    assert drawn == [0, 40]


@pytest.mark.slow
def test_the_command_says_the_likelihood_of_a_run_and_computes_it_once(tmp_path):
    code, _, err = run(*TINY, f"--workdir={tmp_path}", "--config.training.num_steps=5", "--config.schedule.T=50")
    assert code == 0, err
    command = [f"--workdir={tmp_path}", "--mode=eval", "--metrics=vlb_bpd,ode_bpd,fid", "--num=24"]
    code, out, err = run(*command, "--reference=digits:test")
    assert code == 0, err
    assert "24 images of digits:test under" in out and "24/24 images: vlb_bpd" in out and "fd " in out
    assert (tmp_path / "evaluation" / "vlb_bpd_terms.png").stat().st_size > 1000
    rows = {name: row for row in records.read(tmp_path) for name in row["figures"]}
    assert 0 < rows["ode_bpd"]["figures"]["ode_bpd_stderr"] < 1 and rows["vlb_bpd"]["figures"]["vlb_bpd"] > 1
    assert rows["vlb_bpd"]["provenance"]["reference"]["name"] == "digits:test"
    code, out, err = run(*command, "--reference=digits:test")
    assert code == 0 and "24/24 images: vlb_bpd" not in out and "vlb_bpd " in out, err
    assert len([row for row in records.read(tmp_path) if "vlb_bpd" in row["figures"]]) == 1
    code, _, err = run("--mode=report", f"--workdir={tmp_path}")
    page = (tmp_path / "report.html").read_text()
    assert code == 0 and "vlb bpd" in page and "likelihood" in page, err


def test_a_likelihood_is_no_metric_of_samples(tiny):
    tiny.evaluation.metrics = ("vlb_bpd",)
    with pytest.raises(InputError, match=r"^vlb_bpd is of images, not of samples: --mode eval --metrics vlb_bpd"):
        evaluate.Evaluator(tiny, Dataset(IMAGES))


@pytest.mark.parametrize(("loss", "variance"), [("hybrid", "learned"), ("weighted", "posterior")])
def test_the_bound_is_of_the_variance_that_a_model_learned(tiny, tmp_path, monkeypatch, loss, variance):
    tiny.loss.name = loss
    seen = {}

    def rows_of(function, options, *args, **kwargs):
        seen.update(options)
        return {"vlb_bpd": np.ones(3)}

    monkeypatch.setattr(bits_per_dim, "rows_of", rows_of)
    record, _ = likelihood(
        "vlb_bpd", tiny, Dataset(IMAGES), objective.diffusion(tiny, (8, 8, 1)), {}, (8, 8, 1), tmp_path,
        name="x", step=1, seed=0, progress=print,
    )  # fmt: skip
    assert seen["variance"] == record["provenance"]["metrics"]["vlb_bpd"]["variance"] == variance
