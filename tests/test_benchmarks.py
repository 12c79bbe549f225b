"""Benchmarks start, refuse what they cannot measure, reckon as they say, and time the same work where they replace a part of ours."""

import argparse
import collections
import importlib.util
import os
import runpy
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPO

from ddpm.condition import Condition
from ddpm.models import layers
from ddpm.models.unet import UNet

BENCHMARKS = REPO / "benchmarks"
FILES = sorted(file.relative_to(BENCHMARKS) for file in BENCHMARKS.rglob("*.py"))
NEEDS = {"features.py": ("torch", "torch_fidelity"), "speed/theirs.py": ("torch",)}


@pytest.fixture
def benchmark(monkeypatch):
    """What a file of benchmarks defines; it finds its neighbours, as it does when it is started."""

    def read(file):
        monkeypatch.syspath_prepend(str((BENCHMARKS / file).parent))
        return runpy.run_path(str(BENCHMARKS / file))

    yield read
    for name in {file.stem for file in FILES} & sys.modules.keys():  # two are called measure
        del sys.modules[name]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_what_there_is(file, benchmark):
    if missing := [name for name in NEEDS.get(str(file), ()) if not importlib.util.find_spec(name)]:
        pytest.skip(f"needs {missing}")
    benchmark(file)


WRONG = {
    "network": ("speed/measure.py", ["--networks=smal"], "there is no smal, only small, cifar10"),
    "none": ("speed/measure.py", ["--networks="], "--networks: name one or more"),
    "peer": ("speed/measure.py", ["--peers=difusers"], "there is no difusers"),
    "batch": ("speed/measure.py", ["--batch=0"], "'0' is no whole number above 0"),
    "plot": ("speed/measure.py", ["--plot=rates.pdf"], "has to end in .png"),
    "devices": ("speed/measure.py", [], "the environment has JAX_NUM_CPU_DEVICES"),
    "off": ("speed/switches.py", ["--off=fusion"], "there is no fusion, only convolutions by sums"),
    "allocator": ("speed/switches.py", [], "the environment has MALLOC_ARENA_MAX"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses_what_it_cannot_measure(case, benchmark, monkeypatch, capsys):
    file, arguments, said = WRONG[case]
    main = benchmark(file)["main"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # PyTorch is there, or not
    for name in list(os.environ):
        if name.startswith(("MALLOC_", "DDPM_", "JAX_NUM", "JAX_CPU", "XLA_FLAGS", "LD_PRELOAD", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)
    if case in ("devices", "allocator"):
        monkeypatch.setenv(said.split()[-1], "2")
    monkeypatch.setattr(sys, "argv", [file, *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_says_that_a_peer_is_not_installed(benchmark, monkeypatch, capsys):
    main = benchmark("speed/measure.py")["main"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr(sys, "argv", ["measure.py"])
    with pytest.raises(SystemExit):
        main()
    assert "torch: not installed; make parity installs them" in capsys.readouterr().err


def test_table_compares_with_the_fastest_by_images_and_by_operations(benchmark):
    def of(rates, operations):
        peak = {"start": 1e9, "resident": 2e9, "device": 0}
        counted = {"train": operations, "sample": 1}
        return {"train": rates, "operations": counted, "matmul": 1e3, "parameters": 7, "peak": peak}

    figures = {"ours": of([10, 20, 30], 10), "small": of([10, 5, 10], 1), "large": of([2, 4, 5], 25)}
    lines = benchmark("speed/tables.py")["table"]("n", figures)
    assert "| ours | 20 (10 to 30) | 20% | 2.00 |" in lines
    assert "train: 3.00 times small (1.00 to 4.00); in operations 2.00 times large (2.00 to 2.40)" in lines


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("gone", [("start", 1), ("start", 2), ("facts", 1), ("train", 2), ("sample", 1)], ids=str)
def test_goes_on_without_a_peer_that_ends(together, gone, benchmark):
    measured = benchmark("speed/measure.py")["measured"]
    seen = collections.Counter()

    class Contestant:
        first = 1.0

        def __init__(self, who, *_):
            self.who = who
            self("start")

        def __call__(self, do, steps=0, **_):
            seen[self.who, do] += 1
            if self.who == ends and (do, seen[self.who, do]) == gone:
                raise measured.__globals__["Ended"](f"{self.who} ended")
            facts = {"parameters": 1, "operations": {"train": 1, "sample": 1}}
            return facts | {"seconds": 1.0, "steps": steps, "start": 1, "resident": 1, "device": 0, "matmul": 1.0}

        def close(self):
            pass

    measured.__globals__["Contestant"] = Contestant
    peers = ["edm", "guided_diffusion"]
    arguments = argparse.Namespace(peers=peers, together=together, rounds=2, steps=3, batch=4, draws=[1])
    ends = "edm"
    figures = measured("small", arguments)
    assert seen["edm", gone[0]] == gone[1] or together and gone == ("start", 2)  # all start once
    assert ("edm" in figures) == (together and gone == ("start", 2))
    assert figures["ours"]["train"] == [12, 12] and len(figures["guided_diffusion"]["sample 1"]) == 2
    if "edm" not in figures:
        ends = "ours"
        seen.clear()
        with pytest.raises(SystemExit, match="ours ended"):
            measured("small", arguments)


def test_operations_of_the_same_network_are_counted_alike(benchmark):
    count_alike = benchmark("speed/measure.py")["count_alike"]
    figures = {
        who: {"parameters": 10**6, "operations": {"train": i}} for i, who in enumerate(["ours", "diffusers", "edm"])
    }
    count_alike(figures)
    assert [of["operations"]["train"] for of in figures.values()] == [0, 0, 2]
    figures["diffusers"]["parameters"] -= 20
    with pytest.raises(SystemExit, match="diffusers has 999,980 parameters"):
        count_alike(figures)


def test_the_largest_batch_is_of_the_line_of_activations_not_of_gradients(benchmark, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    line = benchmark("memory.py")["line"]
    batches = [1, 4, 32, 64]
    sizes = [max(3_000, 100 * batch + 500) for batch in batches]
    assert line(batches, sizes, 8_500) == (100, 80)
    assert line(batches, sizes, 0)[1] == 0
    with pytest.raises(ValueError, match="batches of 1 and 4 take as much"):
        line(batches[:2], sizes[:2], 8_500)


def test_the_largest_batch_is_of_the_plan_of_a_large_one(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", ["memory.py", "--networks=cifar10", "--batches=8,16", "--limit=80"])
    main = benchmark("memory.py")["main"]

    def planned(network, batch, dtype, *, remat):
        return 10**9, 10**8 * batch if batch <= 16 else 10**9 + 5 * 10**7 * batch  # half as much, of large batches

    settings = dict(tune=lambda: None, check_peers_installed=lambda _: None)
    main.__globals__.update(settings, planned=planned, kept=lambda *_: (10**9, 1.0))
    with pytest.raises(SystemExit, match="batches of 8 and 16 take as much"):
        main()
    main.__globals__["kept"] = lambda network, batch, dtype: (10**9, 10**8 * batch)
    main()
    # 1,560 would take all of it: the line is through 16 and 790, which is what the first line gave
    ours, remat, theirs = (row.split("|")[-3:-1] for row in capsys.readouterr().out.splitlines()[-3:])
    assert ours == remat == [" 0.050 ", " 1,556 "] and theirs == [" 0.100 ", " 790 "]


@pytest.fixture
def replaced(benchmark, monkeypatch):
    monkeypatch.setattr(layers, "GroupNorm", layers.GroupNorm)  # back to what they are after the test
    monkeypatch.setattr(layers, "Dropout", layers.Dropout)
    monkeypatch.setattr(jax, "jit", jax.jit)
    return benchmark("speed/replaced.py")["REPLACED"]


@pytest.mark.parametrize("name", ["norm", "norm_in_two_passes"])
def test_a_replaced_norm_is_the_same_function_of_the_same_parameters(name, replaced):
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([3, 700])

    def out(params=None):
        model = UNet(1, channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(8,), dropout=0.0)
        params = params or jax.tree.map(
            lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) / 4,
            model.init(jax.random.key(1), x, t, Condition(), train=False),
        )
        return params, model.apply(params, x, t, Condition(), train=False)

    params, ours = out()
    replaced[name]()
    assert isinstance(layers.group_norm(8, name="norm"), nn.GroupNorm)
    np.testing.assert_allclose(out(params)[1], ours, rtol=1e-4, atol=1e-4)


def test_a_replaced_dropout_drops_as_many_and_keeps_the_mean(replaced):
    replaced["dropout"]()
    x = jnp.ones((64, 8, 8, 32))

    class Drops(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return layers.Dropout(0.25, name="dropout")(x, train)

    dropped = Drops().apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    kept = np.mean(np.asarray(dropped) > 0)
    assert abs(kept - 0.75) < 5 * np.sqrt(0.75 * 0.25 / x.size)
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_array_equal(Drops().apply({}, x, False), x)


def test_without_donation_the_state_that_was_given_is_still_there(replaced):
    def step(state):
        return state + 1

    given = jnp.zeros(8)
    jax.jit(step, donate_argnums=0)(given)
    assert given.is_deleted()
    replaced["donation"]()
    given = jnp.zeros(8)
    jax.jit(step, donate_argnums=0)(given)
    assert not given.is_deleted()


@pytest.mark.parametrize("first", range(6))  # the first of five checkpoints that is as good, or none
@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_time_to_quality_says_no_more_than_it_saw(first, evaluations, benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "path", sys.path[:])
    compare = benchmark("time_to_quality.py")["compare"]
    (tmp_path / "theirs.npz").touch()
    (tmp_path / "theirs.json").write_text('{"num": 10, "minutes": 2, "seconds": 120, "steps": 300}')
    looked_at = []

    def distance(options, arguments):
        if "--step" not in options:
            return 2.5
        looked_at.append(int(options[options.index("--step") + 1]) // 100 - 1)
        return 2.5 if looked_at[-1] >= first else 3.0

    compare.__globals__.update(distance=distance, ours=lambda *_: {500 - 100 * i: 60 - 12 * i for i in range(5)})
    compare(argparse.Namespace(workdir=tmp_path, num=10, minutes=2, evaluations=evaluations))
    said = capsys.readouterr().out.splitlines()
    assert len(looked_at) == len(set(looked_at)) <= evaluations
    if good := [i for i in looked_at if i >= first]:
        assert said[-1] == f"Ours was as good after at most {0.1 * (1 + min(good)):.2f} of the time of theirs."
        assert evaluations < 4 or min(good) == first
    elif first < 5 or evaluations == 1:
        assert said[-1].startswith("None of the checkpoints of ours that were looked at was as good")
    else:
        assert looked_at[-1] == 4 and said[-1] == "Ours was not as good in half the time of theirs."
    assert f"| theirs | 120 | 300 | {16 * 300} | 2.500 |" in said


def test_growth_is_that_of_each_further_one(benchmark, capsys):
    grow = benchmark("speed/growth.py")["grow"]
    rounds = iter([9.0, 9.0, 9.0, 0.1, 0.3, 0.9, 0.2, 0.3, 0.9, 0.3, 0.6, 0.9])  # the first three warm up
    grow.__globals__.update(Ours=lambda *_: None, seconds=lambda _: next(rounds))
    grow("pixels", [(8, 16, 1000), (8, 32, 2000), (8, 64, 4000)], 3)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "| 1,000 | 0.200 |  |",
        "| 2,000 | 0.300 | 200 (100 to 300) |",
        "| 4,000 | 0.900 | 300 (150 to 300) |",
    ]


def test_starts_are_compared_in_turns_after_one_that_compiles(benchmark, tmp_path):
    starts = benchmark("speed/switches.py")["starts"]
    began = []

    class Contestant:
        def __init__(self, who, network, arguments, folder, **environment):
            began.append((folder.name, environment))
            self.first = [99, 99, 5, 9, 4, 9, 6, 9][len(began) - 1]

        def __call__(self, do):
            assert do == "parts"
            return {"seconds": 0.1, "imports": self.first / 4, "XLA": self.first / 2}

        def close(self):
            pass

    starts.__globals__["Contestant"] = Contestant
    said = starts(argparse.Namespace(network="small", rounds=3), tmp_path).split("\n")[1:]
    assert began == [("all on", {}), ("traced at each start", {"DDPM_TRACED": "0"})] * 4
    assert said[0].startswith(
        "first step again after 5 (4 to 6) s; traced at each start 9 (9 to 9) s; the former took 0.556"
    )
    assert said[1].endswith("imports 1.25 (1 to 1.5); XLA read the step for 2.5 (2 to 3) from before the parameters on")
