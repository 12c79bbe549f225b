"""The times of a sampler's steps: every grid, found by itself, over every process."""

import jax.numpy as jnp
import numpy as np
import pytest
from processes import PROCESSES

from ddpm import names
from ddpm.diffusion import rescale, schedules
from ddpm.diffusion.processes import EDM, VP, RectifiedFlow
from ddpm.errors import InputError
from ddpm.sampling import grids

pytestmark = pytest.mark.usefixtures("x64")
GRIDS = {name: grid for name, grid in names.public(grids).items() if name != "explicit"}


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", PROCESSES)
def test_a_grid_falls_from_T_to_zero_or_t_min(grid, process, final):
    process = PROCESSES[process]
    for num_steps in (1, 2, 5, 30, 300):
        times = GRIDS[grid](process, num_steps, final=final)
        assert len(times) == num_steps + 1 and times[-1] == (0 if final == "zero" else process.t_min)
        assert (np.diff(times) < 0).all() and (num_steps == 1 or times[-2] >= process.t_min)
        if grid in ("log_snr", "karras") and process.log_snr(process.T) < -10.2:
            assert process.log_snr(times[0]) == pytest.approx(-10.2, abs=1e-6)
        else:
            assert times[0] == process.T or (grid == "leading" and times[0] < process.T)


def test_the_grids_of_a_table_are_those_of_the_literature():
    """Of T = 1000: diffusers' timesteps plus 1, and the multiples and squares of DDIM's Appendix D.2."""
    vp = PROCESSES["VP linear"]
    np.testing.assert_array_equal(grids.trailing(vp, 10), np.arange(1000, -1, -100))
    np.testing.assert_array_equal(grids.leading(vp, 10), [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0])
    np.testing.assert_array_equal(grids.linspace(vp, 4), [1000, 667, 334, 1, 0])
    np.testing.assert_array_equal(grids.linspace(vp, 3, final="sigma_min"), [1000, 667, 334, 1])
    np.testing.assert_array_equal(grids.quadratic(vp, 5), [1000, 574, 266, 75, 1, 0])
    crowded = grids.quadratic(vp, 999)
    assert (np.diff(crowded) <= -1).all() and crowded[0] == 1000 and crowded[-1] == 0


def test_a_list_of_times_is_taken_as_it_is():
    vp = PROCESSES["VP linear"]
    for times in ([1000, 700, 20, 0], [900, 5, 0]):
        found = grids.explicit(vp, len(times) - 1, times=times)
        assert found.dtype == np.int32 and found.tolist() == times
    assert grids.explicit(vp, 2, times=(1000, 2.5, 1), final="sigma_min").tolist() == [1000, 2.5, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(num_steps=3, times=(1000, 0)),
            "2 times are 1 steps, not num_steps = 3: name all of them, first and last, in grid.explicit.times.",
        ),
        (
            dict(num_steps=3, times=(1000, 20, 700, 0)),
            "grid.explicit.times rise from 20 to 700: sampling goes from noise to data, so they must fall.",
        ),
        (
            dict(num_steps=1, times=(1001, 0)),
            "grid.explicit.times go from 1001 to 0: they must start at T = 1000 or below, and end with 0, after times of at "
            "least 1.",
        ),
        (
            dict(num_steps=1, times=(1000, 0), final="sigma_min"),
            "grid.explicit.times go from 1000 to 0: they must start at T = 1000 or below, and end with 1, after times of at "
            "least 1.",
        ),
        (
            dict(num_steps=1, times=(1000, 0), final="zer"),
            "unknown grid.final 'zer'. Did you mean 'zero'? Known: sigma_min, zero.",
        ),
    ],
)
def test_a_list_of_times_that_is_none_is_refused(options, message):
    with pytest.raises(InputError) as caught:
        grids.explicit(PROCESSES["VP linear"], **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("num_steps", "final", "most"), [(0, "zero", 1000), (1001, "zero", 1000), (1000, "sigma_min", 999)]
)
@pytest.mark.parametrize("grid", ["trailing", "leading", "linspace", "quadratic", "log_snr", "karras"])
def test_steps_that_the_process_has_not_are_refused(grid, num_steps, final, most):
    with pytest.raises(InputError, match=rf"^num_steps = {num_steps} is not in 1..{most}: a process of T = 1000 "):
        GRIDS[grid](PROCESSES["VP linear"], num_steps, final=final)


@pytest.mark.parametrize("grid", [grids.log_snr, grids.karras])
def test_a_table_without_signal_at_T_starts_where_there_is_some(grid):
    vp = VP(rescale.zero_terminal_snr(schedules.cosine(1000)))
    assert 990 < grid(vp, 10)[0] < 1000
    with pytest.raises(InputError, match=r"^log SNR runs from -inf to "):
        grid(vp, 10, log_snr_min=-np.inf)


def test_karras_is_the_formula_of_edm():
    i, rho = np.arange(18), 7
    sigmas = (80 ** (1 / rho) + i / 17 * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(grids.karras(EDM(), 18), [*sigmas, 0], rtol=1e-5)
    np.testing.assert_allclose(grids.karras(EDM(), 18, rho=1)[:-1], np.linspace(80, 0.002, 18), rtol=1e-5)


def test_log_snr_steps_are_even():
    process = PROCESSES["ContinuousVP linear"]
    steps = np.diff(process.log_snr(jnp.asarray(grids.log_snr(process, 20)[:-1])))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grids.trailing(RectifiedFlow(), 0), "num_steps = 0 must be at least 1."),
        (lambda: grids.karras(EDM(), 0), "num_steps = 0 must be at least 1."),
        (lambda: grids.karras(EDM(), 5, rho=0), "rho = 0 is not in (0, inf); EDM uses 7."),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
