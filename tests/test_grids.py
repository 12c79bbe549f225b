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
GRIDS = names.public(grids)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", PROCESSES)
def test_a_grid_falls_from_T_to_zero(grid, process):
    process = PROCESSES[process]
    if grid != "uniform" and not np.isfinite(process.log_snr(float(process.T))):
        with pytest.raises(
            InputError, match=r"^log SNR runs from -inf to .*: no grid of it is finite. Use the uniform grid."
        ):
            GRIDS[grid](process, 5)
        return
    for num_steps in (1, 2, 5, 30):
        times = GRIDS[grid](process, num_steps)
        assert len(times) == num_steps + 1 and times[0] == process.T and times[-1] == 0
        assert (np.diff(times) < 0).all() and (num_steps == 1 or times[-2] >= process.t_min)


@pytest.mark.parametrize("grid", [grids.log_snr, grids.karras])
def test_a_table_without_signal_at_T_has_no_grid_of_log_snr(grid):
    vp = VP(rescale.zero_terminal_snr(schedules.cosine(1000)))
    with pytest.raises(InputError, match=r"^log SNR runs from -inf to "):
        grid(vp, 10)


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
        (lambda: grids.uniform(RectifiedFlow(), 0), "num_steps = 0 must be at least 1."),
        (lambda: grids.karras(EDM(), 0), "num_steps = 0 must be at least 1."),
        (lambda: grids.karras(EDM(), 5, rho=0), "rho = 0 is not in (0, inf); EDM uses 7."),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
