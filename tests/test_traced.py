"""What is kept of a step is the step of the same code for the same; whatever else there is, it is traced anew."""

import json
import logging
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from conftest import TINY, start
from jax.sharding import NamedSharding, PartitionSpec

from ddpm import sharding
from ddpm.data.pipeline import Examples
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
    """A package of one file in the place of this one."""
    file = tmp_path / "package" / "loss.py"
    file.parent.mkdir()
    write(file, "rate = 1", seconds_ago=2000)
    monkeypatch.setattr(traced, "OURS", file.parent)
    return file


def write(file, text, seconds_ago):
    file.write_text(text)
    time = psutil.Process().create_time() - seconds_ago
    os.utime(file, (time, time))


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

        made = jax.jit(traced.kept(step, *abstract, about))(state, given)
    return made, len(traces)


def program():
    """What XLA is given of a step."""
    step = traced.kept(
        lambda state, given: (state, {"mean": given.pixels.mean()}), *jax.eval_shape(lambda: (state(), GIVEN)), ABOUT
    )
    return jax.jit(step).lower(state(), GIVEN).as_text()


def test_a_step_is_traced_once_and_computes_the_same(monkeypatch):
    made, traces = taken(times=3)
    assert traces == 1
    monkeypatch.setenv("DDPM_TRACED", "0")
    expected, traces = taken(times=3)
    assert traces == 3
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, made, expected)


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
    write(package, "rate = 2", seconds_ago=1000)
    assert taken(times=1)[1] == 1
    write(package, "rate = 22", seconds_ago=1000)
    assert taken(times=1)[1] == 1
    (package.parent / "more").mkdir()
    write(package.parent / "more" / "new.py", "", seconds_ago=1000)
    assert taken(times=1)[1] == 1


def test_code_that_changed_since_it_was_loaded_says_nothing_of_the_step(package, cache):
    write(package, "rate = 2", seconds_ago=-10)
    assert taken()[1] == 2 and not cache.exists()
    changed = program()
    write(package, "rate = 2", seconds_ago=1000)
    (package.parent / "removed.py").symlink_to("nothing")
    assert taken()[1] == 2 and not cache.exists()
    (package.parent / "removed.py").unlink()
    assert changed == program() == program()  # which JAX finds compiled
    assert list(cache.iterdir())


@pytest.mark.parametrize("name", traced.PACKAGES)
def test_another_library_is_another_step(name, package, monkeypatch):
    taken()
    module = __import__(name)
    monkeypatch.setattr(module, "__version__", "0.0.1")
    assert taken(times=1)[1] == 1
    monkeypatch.setattr(module, "__file__", str(package.parent / "__init__.py"))
    assert taken(times=1)[1] == 1


def test_other_settings_are_another_step(monkeypatch):
    taken()
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    assert taken(times=1)[1] == 1
    jax.config.update("jax_default_matmul_precision", None)
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


def test_several_processes_trace_the_same_themselves(monkeypatch, cache):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert taken()[1] == 2 and not cache.exists()


def test_a_step_that_jax_cannot_keep_is_taken_as_it_is(cache):
    def step(state, given):
        jax.debug.print("loss {}", given.pixels.sum(), ordered=True)
        return state, {}

    shapes = jax.eval_shape(lambda: (state(), GIVEN))
    assert traced.kept(step, *shapes, ABOUT) is step and not list(cache.glob("*"))


@pytest.mark.slow
def test_a_command_that_starts_again_trains_by_the_step_that_was_kept(tmp_path, cache):
    runs = []
    for name in ("first", "again", "untraced"):
        workdir: pathlib.Path = tmp_path / name
        process = start(
            *TINY,
            f"--workdir={workdir}",
            environment={"XDG_CACHE_HOME": str(tmp_path / "cache"), "DDPM_TRACED": str(int(name != "untraced"))},
        )
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        runs.append(
            [
                {key: value for key, value in row.items() if key not in ("images_per_second", "waiting_for_data")}
                for row in rows
            ]
        )
        (file,) = cache.iterdir()
        made = made if name != "first" else file.stat().st_mtime_ns
        assert file.stat().st_mtime_ns == made
    assert runs[0] == runs[1] == runs[2]
