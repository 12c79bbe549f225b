"""Costs on paper against closed forms, and against the tables of launch/README.md."""

import re
import runpy

import jax
import pytest
from conftest import REPO

PAPER = runpy.run_path(str(REPO / "benchmarks" / "scaling_on_paper.py"))
H100, V5E, V5P = PAPER["CHIPS"]
README = (REPO / "launch" / "README.md").read_text()


def test_one_domain_is_a_ring():
    sent, inner, outer = PAPER["communication"](H100, 8, 1, 1e9, 0)
    assert sent == pytest.approx(2 * 7 / 8 * 4e9) and inner == pytest.approx(sent / 450e9) and outer == 0


def test_rings_within_and_between_domains_send_what_one_ring_does():
    sent, inner, outer = PAPER["communication"](V5E, 4096, 1, 1e9, 0)
    assert inner * 200e9 + outer * 3.125e9 == pytest.approx(sent) == pytest.approx(2 * 4095 / 4096 * 4e9)
    assert inner * 200e9 == pytest.approx(2 * 255 / 256 * 4e9)


def test_a_state_split_within_nodes_leaves_an_eighth_to_the_links_between_them():
    sent, inner, outer = PAPER["communication"](H100, 256, 8, 1e9, 1e9)
    assert inner == pytest.approx(3 * 7 / 8 * 4e9 / 450e9) and outer == pytest.approx(2 * 31 / 32 * 4e9 / 8 / 50e9)
    whole, *_ = PAPER["communication"](H100, 256, 256, 1e9, 1e9)
    assert whole == pytest.approx(3 * 255 / 256 * 4e9) and sent == pytest.approx(inner * 450e9 + outer * 50e9)


def test_a_slice_that_is_no_torus_has_half_of_the_links():
    assert PAPER["communication"](V5P, 8, 1, 1.0, 0)[1] == pytest.approx(2 * 7 / 8 * 4 / 300e9)
    assert PAPER["communication"](V5P, 4096, 1, 1.0, 0)[1:] == (pytest.approx(2 * 4095 / 4096 * 4 / 600e9), 0)


def test_only_arrays_that_divide_are_split():
    shapes = dict(a=(192, 64), b=(192,), c=(2048, 2048))
    params = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    assert PAPER["split_by"](params, 1) == 0
    assert PAPER["split_by"](params, 8) == 192 * 64 + 2048**2  # not the 192, which are few
    assert PAPER["split_by"](params, 256) == 2048**2


def numbers(pattern, text):
    return [float(number.replace(",", "")) for number in re.search(pattern, text).groups()]


SAID = (
    r": ([\d,]+) parameters, ([\d,]+) of them split by 8, ([\d,]+) by 256, the largest block ([\d,]+); an image (\d+) GFLOP \((\d+) with remat\) "
    r"and (\d+) MB of activations \((\d+)\); (\d+)% of"
)


@pytest.mark.parametrize("network", ["U-Net", "DiT"])
def test_the_readme_has_the_rows_that_are_printed(network):
    """Of the costs it states, rounded: a row may differ from the printed one in its last digit."""
    text = README[README.index(f"**{network}** on") :]
    parameters, by_8, by_256, block, flops, flops_again, kept, kept_again, share = numbers(SAID, text)
    costs = [
        PAPER["Cost"](parameters, {1: 0, 8: by_8, 256: by_256}, block, f * 1e9, k * 1e6)
        for f, k in ((flops, kept), (flops_again, kept_again))
    ]
    rows = text.split("\n\n")[1].splitlines()[2:]
    made = [
        PAPER["row"](chip, chips, images, fsdp, *costs, share / 100, 0.9)
        for chip in PAPER["CHIPS"]
        for chips, images in PAPER["SIZES"]
        for fsdp in PAPER["FSDP"]
        if fsdp <= chips
    ]
    assert len(rows) == len(made) == 24
    for row, again in zip(rows, made, strict=True):
        assert re.sub(r"[\d.]+", "N", row) == re.sub(r"[\d.]+", "N", again)
        for a, b in zip(re.findall(r"[\d.]+", row), re.findall(r"[\d.]+", again), strict=True):
            assert float(a) == pytest.approx(float(b), rel=0.02, abs=0.11), (row, again)


def test_costs_of_a_transformer_are_those_of_its_products():
    """A block has 18 w^2 + 15 w parameters; 12 w^2 of them meet each of N tokens, and attention 2 N^2 w products twice."""
    from experiments import dit_cifar

    config, width, depth, tokens = dit_cifar.get_config(), 256, 3, 16
    config.model.dit.update(width=width, depth=depth, num_heads=4)
    found = PAPER["cost"](config, (8, 8, 3))
    assert found.block == 18 * width**2 + 15 * width
    assert 0 < found.parameters - depth * found.block < 10 * width**2  # the time, the classes, the ends
    products = depth * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
    assert 1 < found.flops / (3 * products) < 1.15  # forward, and twice as many backward
    assert found.activations > 2 * depth * tokens * width
