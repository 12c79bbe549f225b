"""eps <-> x_0: what a network's output says of the clean image and of the noise."""

from ddpm.diffusion.process import VP
from ddpm.shapes import Data, Time, over


def x0_from_eps(process: VP, eps: Data, x_t: Data, t: Time) -> Data:
    """The x_0 that x_t holds if its noise is eps: (x_t - sigma_t eps) / alpha_t.

    Ho et al. 2020, Eq. 15.
    """
    return (x_t - over(process.sigma(t), x_t) * eps) / over(process.alpha(t), x_t)


def eps_from_x0(process: VP, x_0: Data, x_t: Data, t: Time) -> Data:
    """The noise that x_t holds if its clean image is x_0: (x_t - alpha_t x_0) / sigma_t, for t > 0.

    Ho et al. 2020, Eq. 4 solved for eps.
    """
    return (x_t - over(process.alpha(t), x_t) * x_0) / over(process.sigma(t), x_t)
