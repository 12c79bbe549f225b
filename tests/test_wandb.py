"""Weights & Biases as a writer: against a stand-in for the package, and where it is installed against itself, offline."""

import sys
import types

import numpy as np
import pytest

from ddpm.errors import InputError
from ddpm.training.metrics import Metrics
from ddpm.training.wandb_writer import WandbWriter


class StandIn(types.ModuleType):
    """What of wandb is used: `init` starts a run, or goes on with that of an id."""

    class Error(Exception):
        pass

    def __init__(self, mistake=None):
        super().__init__("wandb")
        self.mistake, self.started, self.logged, self.finished = mistake, [], [], 0

    def init(self, **arguments):
        if self.mistake:
            raise self.Error(self.mistake)
        self.started.append(arguments)
        log = lambda figures, step: self.logged.append((step, figures))  # noqa: E731
        return types.SimpleNamespace(id=arguments["id"] or f"id{len(self.started)}", log=log, finish=self._finish)

    def _finish(self):
        self.finished += 1

    def Settings(self, **settings):
        return settings

    def Image(self, pixels):
        return "image", pixels.shape


def test_figures_and_pictures_go_to_the_run_of_the_workdir(tmp_path, monkeypatch):
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    workdir, other = tmp_path / "a", tmp_path / "b"
    workdir.mkdir(), other.mkdir()
    writer = WandbWriter(workdir, "digits", {"seed": 0})
    writer.scalars(10, {"loss": 0.5, "skipped": 0})
    writer.image(10, "samples", np.zeros((8, 8, 1), np.uint8))
    writer.close()
    assert wandb.logged == [(10, {"loss": 0.5, "skipped": 0}), (10, {"samples": ("image", (8, 8, 1))})]
    assert wandb.finished == 1 and wandb.started[0]["config"] == {"seed": 0}
    WandbWriter(workdir, "digits", {"seed": 0})  # goes on
    WandbWriter(other, "digits", {"seed": 0})  # another
    assert [start["id"] for start in wandb.started] == [None, "id1", None]
    assert {start["resume"] for start in wandb.started} == {"allow"}


def test_what_is_not_there_is_told_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError) as error:
        WandbWriter(tmp_path, "digits", {})
    assert str(error.value) == (
        "training.wandb = 'digits' needs the package wandb, which is not installed: pip install wandb; or leave it empty."
    )
    monkeypatch.setitem(sys.modules, "wandb", StandIn("No API key\nconfigured."))
    with pytest.raises(InputError) as error:
        WandbWriter(tmp_path, "digits", {})
    assert str(error.value) == (
        "training.wandb = 'digits': No API key configured. Or set WANDB_MODE=offline, or leave training.wandb empty."
    )


def test_the_package_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (10, 20):
        writer = WandbWriter(tmp_path, "digits", {"optimizer": {"learning_rate": 1e-3}})
        writer.scalars(step, {"loss": 0.5})
        writer.image(step, "samples", np.zeros((8, 8, 1), np.uint8))
        writer.close()
    name = (tmp_path / "wandb_run").read_text().strip()
    assert (
        len(list((tmp_path / "wandb").glob(f"offline-run-*/run-{name}.wandb"))) == 2
    )  # `wandb sync` makes one run of both
    assert len(list((tmp_path / "wandb").glob("offline-run-*/files/media/images/samples_*.png"))) == 2


def test_what_training_writes_goes_to_the_other_writers_too(tmp_path, monkeypatch):
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    writer = Metrics(tmp_path, 0, [WandbWriter(tmp_path, "project", {})])
    writer.scalars(1, {"loss": 0.5})
    writer.chart(1, {"evaluation/fd": 2.0})
    writer.image(1, "samples", np.zeros((4, 4, 3), np.uint8))
    writer.close()
    assert wandb.logged == [(1, {"loss": 0.5}), (1, {"evaluation/fd": 2.0}), (1, {"samples": ("image", (4, 4, 3))})]
    assert wandb.finished == 1
