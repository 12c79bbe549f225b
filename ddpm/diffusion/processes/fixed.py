"""Forward processes by name: what each says of alpha and sigma; process.py derives the rest."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.process import Process
from ddpm.errors import InputError, check_inside, unknown_name
from ddpm.shapes import PerTime, Time

TOLD = {  # (t, T) -> what networks see of a time
    "share": lambda t, T: 1000 * (t / T),
    "index": lambda t, T: 1.0 * (t - 1),
    "scaled_index": lambda t, T: 1000 / T * (t - 1),
}
MAX_FINAL_ALPHA_BAR = 0.01  # Stable Diffusion's 0.0047 is the largest in common use


@dataclasses.dataclass(frozen=True, eq=False)
class VP(Process):
    """The variance-preserving process of a table: alpha_t = sqrt(alpha_bar_t), sigma_t = sqrt(1 - alpha_bar_t).

    Times are the integers 0..T; between them log alpha_bar is interpolated linearly.

    Args:
      alpha_bar: float64 table [T + 1], 1 at t = 0, strictly falling, near 0 at t = T (sampling starts from N(0, I)).
      told: 'share', networks see 1000 t / T; 'index', t - 1, where others count from 0, as diffusers; 'scaled_index', 1000
        (t - 1) / T, as improved DDPM.
    Raises:
      InputError: a table that is not so, or another way to tell times.

    Ho et al. 2020, Eq. 4.
    """

    alpha_bar: np.ndarray
    told: str = "share"
    discrete, t_min = True, 1

    def __post_init__(self):
        if self.told not in TOLD:
            raise unknown_name("process.VP.told", self.told, TOLD)
        a = self.alpha_bar
        if a.ndim != 1 or len(a) < 3 or a[0] != 1:
            raise InputError(f"alpha_bar of shape {a.shape} is no table of T + 1 >= 3 values that starts with 1.")
        if not (np.diff(a) < 0).all() or a[-1] < 0:
            raise InputError("alpha_bar must fall strictly from 1 and stay >= 0; check the schedule's betas.")
        _check_end(a[-1], f"Use more noise levels (T = {self.T}), larger betas, or the cosine schedule.")

    @property
    def T(self) -> int:
        """The number of noise levels."""
        return len(self.alpha_bar) - 1

    def seen(self, t: Time) -> PerTime:
        return TOLD[self.told](jnp.asarray(t), self.T)

    def alpha(self, t: Time) -> PerTime:
        return self._at(t, np.sqrt(self.alpha_bar), lambda log_alpha_bar: jnp.exp(log_alpha_bar / 2))

    def sigma(self, t: Time) -> PerTime:
        return self._at(t, np.sqrt(1 - self.alpha_bar), lambda log_alpha_bar: jnp.sqrt(-jnp.expm1(log_alpha_bar)))

    def log_snr(self, t: Time) -> PerTime:
        with np.errstate(divide="ignore"):
            table = np.log(self.alpha_bar) - np.log1p(-self.alpha_bar)
        return self._at(t, table, _log_snr)

    def _at(self, t, table, of_log_alpha_bar):
        if jnp.issubdtype(jnp.result_type(t), jnp.integer):
            return jnp.asarray(table)[t]
        log_alpha_bar = np.log(np.maximum(self.alpha_bar, np.finfo(np.float32).tiny))
        return of_log_alpha_bar(jnp.interp(t, np.arange(self.T + 1.0), log_alpha_bar))


@dataclasses.dataclass(frozen=True, eq=False)
class ContinuousVP(Process):
    """The variance-preserving process of a function: alpha_t^2 = sigmoid(log_snr(t)), sigma_t^2 = sigmoid(-log_snr(t)).

    With the linear schedule it is the VP SDE.

    Args:
      function: t in [0, 1] -> log SNR, falling, such as those of continuous.py.
      t_min: in [0, 1).
    Raises:
      InputError: signal is left at t = 1.

    Song et al. 2021 (score SDE), Eq. 32; Kingma et al. 2021 (VDM), Eq. 3.
    """

    function: Callable[[jax.Array], jax.Array]
    t_min: float = 1e-5
    T = 1.0

    def __post_init__(self):
        check_inside(-1e-9, 1, usual="score SDE uses 1e-5", t_min=self.t_min)
        end = float(jax.nn.sigmoid(self.function(jnp.ones(()))))
        _check_end(end, "Use a larger beta_max, or the cosine schedule.")

    def alpha(self, t: Time) -> PerTime:
        return jnp.sqrt(jax.nn.sigmoid(self.log_snr(t)))

    def sigma(self, t: Time) -> PerTime:
        return jnp.sqrt(jax.nn.sigmoid(-self.log_snr(t)))

    def log_snr(self, t: Time) -> PerTime:
        return self.function(_real(t))


@dataclasses.dataclass(frozen=True, eq=False)
class SubVP(Process):
    """Less noise than VP at every time: sigma_t = 1 - alpha_t^2, with log alpha_t^2 = -(beta_min t + (beta_max - beta_min) t^2 / 2).

    Song et al. 2021 (score SDE), Eq. 29 and 33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    T = 1.0

    def __post_init__(self):
        check_inside(0, np.inf, usual="score SDE uses 0.1 and 20", beta_min=self.beta_min, beta_max=self.beta_max)
        check_inside(-1e-9, 1, usual="score SDE uses 1e-5", t_min=self.t_min)
        _check_end(float(jnp.exp(self._log_alpha_bar(1.0))), "Use a larger beta_max.")

    def alpha(self, t: Time) -> PerTime:
        return jnp.exp(self._log_alpha_bar(t) / 2)

    def sigma(self, t: Time) -> PerTime:
        return -jnp.expm1(self._log_alpha_bar(t))

    def log_snr(self, t: Time) -> PerTime:
        return self._log_alpha_bar(t) - 2 * jnp.log(self.sigma(t))

    def _log_alpha_bar(self, t):
        t = _real(t)
        return -(self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2)


@dataclasses.dataclass(frozen=True, eq=False)
class _Exploding(Process):
    sigma_min: float
    sigma_max: float

    def __post_init__(self):
        check_inside(0, self.sigma_max, usual="it must be positive and below sigma_max", sigma_min=self.sigma_min)
        _check_end(1 / (1 + self.sigma_max**2), "Use a larger sigma_max.")

    @property
    def prior_scale(self) -> float:
        """sigma_max: next to it, data are nothing."""
        return self.sigma_max

    def alpha(self, t: Time) -> PerTime:
        return jnp.ones_like(_real(t))


@dataclasses.dataclass(frozen=True, eq=False)
class VE(_Exploding):
    """Data whose noise grows geometrically: alpha_t = 1, sigma_t = sigma_min (sigma_max / sigma_min)^t, and none at t = 0.

    Song et al. 2021 (score SDE), Eq. 30 and 31; data here are in [-1, 1], theirs in [0, 1]: both sigmas are twice theirs.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    t_min: float = 1e-5
    T = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_inside(-1e-9, 1, usual="score SDE uses 1e-5", t_min=self.t_min)

    def sigma(self, t: Time) -> PerTime:
        return jnp.exp(-self.log_snr(t) / 2)

    def log_snr(self, t: Time) -> PerTime:
        t = _real(t)
        log_snr = -2 * (np.log(self.sigma_min) + t * np.log(self.sigma_max / self.sigma_min))
        return jnp.where(t > 0, log_snr, jnp.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class EDM(_Exploding):
    """Time is the noise: alpha_t = 1, sigma_t = t.

    Karras et al. 2022 (EDM), Table 1.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def T(self) -> float:
        """sigma_max."""
        return self.sigma_max

    @property
    def t_min(self) -> float:
        """sigma_min."""
        return self.sigma_min

    def sigma(self, t: Time) -> PerTime:
        return _real(t)

    def log_snr(self, t: Time) -> PerTime:
        return -2 * jnp.log(_real(t))

    def fraction(self, t: Time) -> PerTime:
        return jnp.log(_real(t) / self.sigma_min) / np.log(self.sigma_max / self.sigma_min)


@dataclasses.dataclass(frozen=True, eq=False)
class RectifiedFlow(Process):
    """Straight lines from data to noise: alpha_t = 1 - t, sigma_t = t.

    With `shift` r > 1 more time is spent in the noise, as large images need: sigma_t = r t / (1 + (r - 1) t).

    Liu et al. 2023 (rectified flow), Eq. 1; Lipman et al. 2023; Esser et al. 2024 (Stable Diffusion 3), Eq. 23 (the shift).
    """

    shift: float = 1.0
    t_min: float = 1e-5
    T = 1.0

    def __post_init__(self):
        check_inside(0, np.inf, usual="1 is none; Stable Diffusion 3 uses 3 at 1024 pixels", shift=self.shift)
        check_inside(-1e-9, 1, usual="1e-5 will do", t_min=self.t_min)

    def alpha(self, t: Time) -> PerTime:
        t = _real(t)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma(self, t: Time) -> PerTime:
        t = _real(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def log_snr(self, t: Time) -> PerTime:
        t = _real(t)
        return 2 * (jnp.log1p(-t) - jnp.log(self.shift * t))


def _real(t: Time) -> jax.Array:
    t = jnp.asarray(t)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(jnp.result_type(float))


def _log_snr(log_alpha_bar: jax.Array) -> jax.Array:
    return log_alpha_bar - jnp.log(-jnp.expm1(log_alpha_bar))


def _check_end(alpha_bar: float, remedy: str) -> None:
    if alpha_bar > MAX_FINAL_ALPHA_BAR:
        raise InputError(
            f"alpha_bar_T = {alpha_bar:.4g} leaves signal in x_T, but sampling starts from pure noise: it must be at "
            f"most {MAX_FINAL_ALPHA_BAR}. {remedy}"
        )
