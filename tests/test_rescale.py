import jax.numpy as jnp
import numpy as np
import pytest
from processes import CONTINUOUS, SCHEDULES

from ddpm.diffusion.prediction import check
from ddpm.diffusion.predictions import eps, v
from ddpm.diffusion.processes import VP, ContinuousVP
from ddpm.diffusion.rescale import shifted, shifted_function, zero_terminal_snr
from ddpm.errors import InputError


def log_snr(alpha_bar):
    return np.log(alpha_bar) - np.log1p(-alpha_bar)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_signal_is_left_and_the_first_level_keeps_its_own(name):
    table = SCHEDULES[name](1000)
    rescaled = zero_terminal_snr(table)
    assert rescaled.dtype == np.float64 and rescaled[-1] == 0 and rescaled[0] == 1
    assert rescaled[1] == pytest.approx(table[1], rel=1e-12)
    root, new = np.sqrt(table[1:]), np.sqrt(rescaled[1:])
    slope = np.polyfit(root, new, 1)  # an affine map of the roots, through both ends
    np.testing.assert_allclose(np.polyval(slope, root), new, atol=1e-9)
    process = VP(rescaled)  # which is strict about tables
    check(process, v(), "v")
    with pytest.raises(InputError, match="prediction 'eps' is impossible"):
        check(process, eps(), "eps")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_shift_moves_log_snr(name):
    table = SCHEDULES[name](1000)
    moved = shifted(table, 64 / 256)
    np.testing.assert_allclose(log_snr(moved[1:]), log_snr(table[1:]) - 2 * np.log(4), atol=1e-9)
    assert moved[0] == 1 and (VP(moved).alpha_bar == moved).all()
    np.testing.assert_allclose(shifted(moved, 4), table, rtol=1e-9)


def test_the_mean_of_a_wide_image_is_as_noisy_as_the_narrow_one():
    # A 256-pixel image averaged over 4 x 4 pixels has its noise divided by 4: the SNR of the 64-pixel schedule.
    table = SCHEDULES["cosine"](1000)
    wide = shifted(table, 64 / 256)
    np.testing.assert_allclose(wide[1:] / ((1 - wide[1:]) / 16), table[1:] / (1 - table[1:]), rtol=1e-9)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_functions_are_shifted_alike(x64, name):
    u = jnp.linspace(0.01, 1.0, 50)
    moved = shifted_function(CONTINUOUS[name], 64 / 256)
    np.testing.assert_allclose(moved(u), CONTINUOUS[name](u) - 2 * np.log(4), rtol=1e-12)
    assert float(ContinuousVP(moved).alpha(1.0)) < float(ContinuousVP(CONTINUOUS[name]).alpha(1.0))


@pytest.mark.parametrize("shift", [lambda: shifted(SCHEDULES["cosine"](10), 0), lambda: shifted_function(jnp.sin, 0)])
def test_bad_arguments_are_named(shift):
    with pytest.raises(InputError) as caught:
        shift()
    assert str(caught.value) == (
        "ratio = 0 is not in (0, inf); it is the schedule's resolution by the data's, such as 64 / 256."
    )
