"""Costs on paper against closed forms, and against the tables of launch/README.md."""

import re
import runpy

import pytest
from conftest import REPO

PAPER = runpy.run_path(str(REPO / "benchmarks" / "scaling_on_paper.py"))
H100, V5E, V5P = PAPER["CHIPS"]
README = (REPO / "launch" / "README.md").read_text()


def test_one_domain_is_a_ring():
    inner, outer = PAPER["gather"](H100, 8, 4e9)
    assert outer == 0 and inner == pytest.approx(7 / 8 * 4e9 / 450e9)


def test_rings_within_and_between_domains_move_what_one_ring_does():
    inner, outer = PAPER["gather"](V5E, 4096, 4e9)
    within, between = inner * 200e9, outer * 3.125e9
    assert within + between == pytest.approx(4095 / 4096 * 4e9) and within == pytest.approx(255 / 256 * 4e9)


def test_a_slice_that_is_no_torus_has_half_of_the_links():
    assert PAPER["gather"](V5P, 8, 1.0)[0] == pytest.approx(7 / 8 / 300e9)
    assert PAPER["gather"](V5P, 4096, 1.0) == (pytest.approx(4095 / 4096 / 600e9), 0)


def numbers(pattern, text):
    return [float(number.replace(",", "")) for number in re.search(pattern, text).groups()]


SAID = (
    r": ([\d,]+) parameters, the largest block ([\d,]+); an image (\d+) GFLOP \((\d+) with remat\) "
    r"and (\d+) MB of activations \((\d+)\); (\d+)% of"
)


@pytest.mark.parametrize("network", ["U-Net", "DiT"])
def test_the_readme_has_the_rows_that_are_printed(network):
    """Of the costs it states, rounded: a row may differ from the printed one in its last digit."""
    text = README[README.index(f"**{network}** on") :]
    parameters, block, flops, flops_again, kept, kept_again, share = numbers(SAID, text)
    costs = [PAPER["Cost"](parameters, block, f * 1e9, k * 1e6) for f, k in ((flops, kept), (flops_again, kept_again))]
    rows = text.split("\n\n")[1].splitlines()[2:]
    made = [
        PAPER["row"](chip, chips, images, layout, *costs, share / 100, 0.9)
        for chip in PAPER["CHIPS"]
        for chips, images in PAPER["SIZES"]
        for layout in ("DP", "FSDP")
    ]
    assert len(rows) == len(made) == 18
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
