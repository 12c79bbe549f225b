"""What is kept of a step is the step of the same code for the same; whatever else there is, it is traced anew."""

import json
import logging
import os
import shutil
import sys
import sysconfig
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, start
from jax.sharding import NamedSharding, PartitionSpec

import ddpm
from ddpm import sharding
from ddpm.data.pipeline import Examples
from ddpm.errors import MachineError
from ddpm.training import traced
from ddpm.training.state import State

ABOUT = {"config": {"rate": 0.5}}
GIVEN = Examples(jnp.arange(8.0).reshape(2, 2, 2, 1))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty place for what is kept, asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DDPM_TRACED", "1")
    return tmp_path / "cache" / "ddpm" / "traced"


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """A module of this package, which is another file: those of the real one may change while tests run."""
    file = tmp_path / "package" / "loss.py"
    file.parent.mkdir()
    file.write_text("rate = 1")
    monkeypatch.setattr(ddpm, "__file__", str(file))
    return file


def state(w=None):
    w = jnp.ones((2, 4)) if w is None else w
    return State(jnp.zeros((), jnp.int32), {"w": w}, {"w": w}, (w,), jnp.zeros((), jnp.int32))


def taken(about=ABOUT, state=state(), given=GIVEN, times=2):  # noqa: B008
    """(What a step makes of a state, how often it was traced meanwhile)."""
    traces = []
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), (state, given)
    )
    for _ in range(times):

        def step(state, given):
            traces.append(given)
            w = state.params["w"] * 0.5 + given.pixels.mean()
            new = State(state.batch + 1, {"w": w}, {"w": w}, (w,), state.skipped)
            return new, {"loss": w.sum(), "skipped": state.skipped}

        kept, _ = traced.kept(step, *abstract, about)
        made = jax.jit(kept)(state, given)
    return made, len(traces)


def test_a_step_is_traced_once_and_computes_the_same(monkeypatch):
    monkeypatch.setenv("DDPM_TRACED", "yes")
    made, traces = taken(times=3)
    assert traces == 1
    monkeypatch.setenv("DDPM_TRACED", "0")
    expected, traces = taken(times=3)
    assert traces == 3
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, made, expected)


def test_a_step_that_is_kept_found_or_neither_is_one_program(monkeypatch):
    def step(state, given):
        return state, {"mean": given.pixels.mean()}

    programs = []
    for keeps in ("1", "1", "0"):
        monkeypatch.setenv("DDPM_TRACED", keeps)
        kept, _ = traced.kept(step, *jax.eval_shape(lambda: (state(), GIVEN)), ABOUT)
        programs.append(jax.jit(kept).lower(state(), GIVEN).as_text())
    assert programs[0] == programs[1] == programs[2]


def test_a_step_that_had_no_use_for_a_month_is_removed(cache):
    ages = {}
    for rate, days in enumerate((31, 31, 29)):
        taken({"rate": rate}, times=1)
        (ages[rate],) = set(cache.iterdir()) - set(ages.values())
        os.utime(ages[rate], (then := time.time() - days * 86_400, then))
    taken({"rate": 1}, times=1)  # is of use again
    taken({"rate": 3}, times=1)
    assert ages[0] not in (left := set(cache.iterdir())) and left > {ages[1], ages[2]}


def test_only_the_command_keeps_steps(monkeypatch, cache):
    monkeypatch.delenv("DDPM_TRACED")
    assert taken()[1] == 2 and not cache.exists()


def test_another_configuration_is_another_step():
    taken()
    assert taken(times=1)[1] == 0
    assert taken({"config": {"rate": 0.25}}, times=1)[1] == 1


def test_other_shapes_types_and_shardings_are_another_step():
    taken()
    mesh = sharding.data_mesh(jax.devices()[:2])
    for other in (
        dict(state=state(jnp.ones((2, 3)))),
        dict(state=state(jnp.ones((2, 4), jnp.bfloat16))),
        dict(given=Examples(jnp.ones((3, 2, 2, 1)))),
        dict(given=Examples(GIVEN.pixels.astype(jnp.uint8))),
        dict(
            state=jax.device_put(state(), sharding.replicated(mesh)),
            given=jax.device_put(GIVEN, sharding.replicated(mesh)),
        ),
        dict(
            state=jax.device_put(state(), sharding.replicated(mesh)),
            given=jax.device_put(GIVEN, NamedSharding(mesh, PartitionSpec("data"))),
        ),
    ):
        assert taken(**other)[1] == 1


def test_other_code_is_another_step(package):
    taken()
    assert taken(times=1)[1] == 0
    package.write_text("rate = 22")
    assert taken(times=1)[1] == 1
    os.utime(package, (1, 1))
    assert taken(times=1)[1] == 1
    (package.parent / "more").mkdir()
    (package.parent / "more" / "new.py").write_text("")
    assert taken(times=1)[1] == 1
    (package.parent / "removed.py").symlink_to("nothing")
    assert taken(times=1)[1] == 0


def test_a_module_of_the_user_that_changed_is_another_step(tmp_path, monkeypatch):
    file = tmp_path / "my_losses.py"
    file.write_text("")
    monkeypatch.setitem(sys.modules, "my_losses", types.SimpleNamespace(__file__=str(file)))
    taken()
    assert taken(times=1)[1] == 0
    file.write_text("rate = 2")
    assert taken(times=1)[1] == 1


@pytest.mark.parametrize("prefix", ["my-packages", "environment/src", "environment2"])
def test_a_module_of_the_user_may_lie_anywhere(tmp_path, monkeypatch, prefix):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "environment"))
    file = tmp_path / prefix / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text("rate = 1")
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(__file__=str(file)))
    taken()
    file.write_text("rate = 10")
    assert taken(times=1)[1] == 1


def test_a_module_that_is_installed_says_nothing(monkeypatch):
    """Which of them are loaded differs from start to start."""
    taken()
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/elsewhere/dist-packages"):
        monkeypatch.setitem(sys.modules, "installed", types.SimpleNamespace(__file__=f"{folder}/installed.py"))
        assert taken(times=1)[1] == 0


@pytest.mark.parametrize("name", traced.PACKAGES)
def test_another_library_is_another_step(name, package, tmp_path, monkeypatch):
    taken()
    monkeypatch.setattr(sys.modules[name], "__file__", str(tmp_path / "none" / "__init__.py"))
    assert taken(times=1)[1] == 1


@pytest.mark.parametrize("module", [jax, np])
def test_another_version_is_another_step(module, monkeypatch):
    taken()
    monkeypatch.setattr(module, "__version__", "0.0.1")
    assert taken(times=1)[1] == 1


RATE = {"now": 0.5}


def test_a_step_that_became_another_unnoticed_is_told_before_it_is_saved(cache, monkeypatch):
    def step(state, given):
        return state, {"loss": RATE["now"] * given.pixels.mean()}

    shapes = jax.eval_shape(lambda: (state(), GIVEN))
    for _ in range(2):  # traced, and found
        traced.kept(step, *shapes, ABOUT)[1]()
    monkeypatch.setitem(RATE, "now", 0.25)  # as the weights of a text encoder, or a function that was replaced
    _, check = traced.kept(step, *shapes, ABOUT)
    with pytest.raises(MachineError, match="Run the same command again"):
        check()
    again, check = traced.kept(step, *shapes, ABOUT)
    check()
    assert again(state(), GIVEN)[1]["loss"] == 0.25 * GIVEN.pixels.mean()


def test_other_settings_are_another_step(monkeypatch):
    taken()
    with jax.default_matmul_precision("bfloat16"):
        assert taken(times=1)[1] == 1
    monkeypatch.setenv("DDPM_WINOGRAD", "0")
    assert taken(times=1)[1] == 1
    monkeypatch.setattr(jax, "devices", list)
    assert taken(times=1)[1] == 1


def test_what_is_broken_is_traced_anew_and_mended(cache, caplog):
    taken()
    (file,) = cache.iterdir()
    for content in (file.read_bytes()[:-1], b""):
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING, "absl"):
            assert taken()[1] == 1
        assert "is broken" in caplog.text
        caplog.clear()


def test_where_nothing_can_be_kept_training_goes_on(cache, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in the place of the directory")
    with caplog.at_level(logging.WARNING, "absl"):
        assert taken()[1] == 2
    assert "traced at each start" in caplog.text


def test_without_what_writes_it_a_step_is_not_kept_and_training_goes_on(cache, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)  # as without flatbuffers
    with caplog.at_level(logging.WARNING, "absl"):
        assert taken()[1] == 2
    assert "is not kept" in caplog.text and not cache.exists()


def test_several_processes_trace_the_same_themselves(monkeypatch, cache):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert taken()[1] == 2 and not cache.exists()


def test_a_step_that_jax_cannot_keep_is_taken_as_it_is_and_that_is_told(cache, caplog):
    def step(state, given):
        jax.debug.print("loss {}", given.pixels.sum(), ordered=True)
        return state, {}

    shapes = jax.eval_shape(lambda: (state(), GIVEN))
    with caplog.at_level(logging.WARNING, "absl"):
        assert traced.kept(step, *shapes, ABOUT)[0] is step
    assert "traced at each start" in caplog.text and not list(cache.glob("*"))


def trained(workdir, cache, *more, **environment):
    """(exit code and figures, what went wrong) of a command; without DDPM_TRACED, which it sets, if that is not given."""
    told = {"XDG_CACHE_HOME": str(cache.parents[1])} | environment
    process = start(*TINY, f"--workdir={workdir}", "--config.training.num_steps=2", *more, environment=told)
    _, err = process.communicate(timeout=300)
    figures, timed = workdir / "metrics.jsonl", ("images_per_second", "waiting_for_data")
    rows = map(json.loads, figures.read_text().splitlines() if figures.exists() else [])
    return (process.returncode, [{k: v for k, v in row.items() if k not in timed} for row in rows]), err


@pytest.mark.slow
def test_a_command_that_starts_again_trains_by_the_step_that_was_kept(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("DDPM_TRACED")
    first, err = trained(tmp_path / "first", cache)
    assert first[0] == 0, err
    (file,) = cache.iterdir()
    made = file.stat().st_ino
    assert trained(tmp_path / "again", cache)[0] == first
    assert file.stat().st_ino == made  # what is written anew is another file
    assert trained(tmp_path / "untraced", cache, DDPM_TRACED="0")[0] == first


@pytest.mark.slow
def test_a_command_saves_nothing_of_a_step_that_became_another(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("DDPM_TRACED")
    assert trained(tmp_path / "another", cache, "--config.seed=1")[0][0] == 0
    (another,) = cache.iterdir()
    expected, _ = trained(tmp_path / "run", cache)
    (file,) = {*cache.iterdir()} - {another}
    shutil.copy(another, file)
    (code, _), err = trained(tmp_path / "stale", cache)
    assert code == os.EX_IOERR and "Run the same command again" in err and "Traceback" not in err
    assert not file.exists() and not [*(tmp_path / "stale" / "checkpoints").glob("*")]
    assert trained(tmp_path / "stale", cache)[0] == expected
