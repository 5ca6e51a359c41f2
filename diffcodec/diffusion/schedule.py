"""Noise schedules: every one of them is a table γ_0 … γ_T of γ = −log SNR.

Variance preserving throughout: α² = sigmoid(−γ), σ² = sigmoid(γ) (VDM, arXiv:2107.00630, §3.2).
DDPM's linear β, improved DDPM's cosine and VDM's linear and learned γ differ in the table alone;
everything downstream sees nothing else.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

DEFAULT_STEPS = 1000
COSINE_OFFSET = 0.008
COSINE_MAX_BETA = 0.999
GAMMA_GRID = 2.0**-20
COEFFICIENT_BITS = 40

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ScheduleConfig:
    """Which table.

    Attributes:
        kind: a key of `SCHEDULES`. ``learned`` is for training alone: the model holds a network
            for γ(t), and what it has learned is frozen into a ``table``.
        steps: T.
        gamma_min, gamma_max: γ's ends: of ``linear_gamma``, and those that a ``learned`` γ begins
            with. A ``table`` keeps the latter: the model's time input is scaled by them.
        beta_min, beta_max: β_1 and β_T of ``linear_beta``.
        table: γ_0 … γ_T of a ``table``; empty for every other kind.
    """

    kind: str = "linear_gamma"
    steps: int = DEFAULT_STEPS
    gamma_min: float = -12.0
    gamma_max: float = 5.0
    beta_min: float = 1e-4
    beta_max: float = 0.02
    table: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            known = ", ".join(sorted(SCHEDULES))
            raise ValueError(f"unknown schedule {self.kind!r}, expected one of {known}")
        expected = self.steps + 1 if self.kind == "table" else 0
        if len(self.table) != expected:
            raise ValueError(
                f"a {self.kind} schedule of {self.steps} steps has {expected} values in its table, "
                f"found {len(self.table)}"
            )


@dataclass(frozen=True, eq=False)
class Schedule:
    """A table of γ and the coefficients that follow from it.

    Both ends of the codec compute with these numbers, so γ is rounded to a grid of 2⁻²⁰ and the
    coefficients to 40 significant bits: platforms whose ``exp`` differs in the last place agree.

    Attributes:
        gamma: float64 [T + 1], strictly increasing; step 0 is the data's end, T is noise.
    """

    gamma: Float64

    def __post_init__(self) -> None:
        gamma = np.asarray(self.gamma, dtype=np.float64)
        if gamma.ndim != 1 or len(gamma) < 2:
            raise ValueError(f"a schedule needs at least two values of gamma, got {gamma.shape}")
        gamma = np.rint(gamma / GAMMA_GRID) * GAMMA_GRID
        if not np.all(np.isfinite(gamma)) or not np.all(np.diff(gamma) > 0):
            raise ValueError("gamma must be finite and strictly increasing from step 0 to step T")
        object.__setattr__(self, "gamma", gamma)

    @property
    def steps(self) -> int:
        """T, the number of steps of the finest grid."""
        return len(self.gamma) - 1

    @cached_property
    def alpha_squared(self) -> Float64:
        """α_t² = sigmoid(−γ_t), float64 [T + 1]."""
        return _round_significand(1.0 / (1.0 + np.exp(self.gamma)))

    @cached_property
    def sigma_squared(self) -> Float64:
        """σ_t² = sigmoid(γ_t), float64 [T + 1]."""
        return _round_significand(1.0 / (1.0 + np.exp(-self.gamma)))

    @cached_property
    def alpha(self) -> Float64:
        """α_t, float64 [T + 1]."""
        return np.sqrt(self.alpha_squared)

    @cached_property
    def sigma(self) -> Float64:
        """σ_t, float64 [T + 1]."""
        return np.sqrt(self.sigma_squared)

    @cached_property
    def snr(self) -> Float64:
        """SNR(t) = exp(−γ_t), float64 [T + 1], strictly decreasing."""
        return _round_significand(np.exp(-self.gamma))

    def step_at_gamma(self, gamma: float) -> int:
        """The step whose γ is nearest to ``gamma``."""
        return int(np.argmin(np.abs(self.gamma - gamma)))


def linear_gamma(config: ScheduleConfig) -> Float64:
    """VDM's fixed schedule: γ linear in t (arXiv:2107.00630, §6)."""
    return np.linspace(config.gamma_min, config.gamma_max, config.steps + 1)


def linear_beta(config: ScheduleConfig) -> Float64:
    """DDPM's β_1 … β_T linear in t (arXiv:2006.11239, §4), over T + 1 noise levels.

    DDPM has no noise level before x_1; here the table's step t is DDPM's t + 1, so T + 1 values of
    β make the T + 1 levels and unit hops are DDPM's own.
    """
    beta = np.linspace(config.beta_min, config.beta_max, config.steps + 1)
    return _gamma_from_log_alpha_squared(np.cumsum(np.log1p(-beta)))


def cosine(config: ScheduleConfig) -> Float64:
    """Improved DDPM's cosine schedule (arXiv:2102.09672, eq. 17), its β limited to 0.999."""
    time = np.arange(config.steps + 2) / (config.steps + 1)
    f = np.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2
    beta = np.minimum(1 - f[1:] / f[:-1], COSINE_MAX_BETA)
    return _gamma_from_log_alpha_squared(np.cumsum(np.log1p(-beta)))


def stored_table(config: ScheduleConfig) -> Float64:
    """The table that the configuration holds, such as a learned γ's."""
    return np.array(config.table, dtype=np.float64)


SCHEDULES: Mapping[str, Callable[[ScheduleConfig], Float64]] = {
    "linear_gamma": linear_gamma,
    "linear_beta": linear_beta,
    "cosine": cosine,
    # What it begins as: while it learns, the model has the table (`Denoiser.schedule`).
    "learned": linear_gamma,
    "table": stored_table,
}


def make_schedule(config: ScheduleConfig) -> Schedule:
    """The table that ``config`` names.

    Raises:
        ValueError: parameters that do not give an increasing γ.
    """
    return Schedule(SCHEDULES[config.kind](config))


def time_ends(config: ScheduleConfig) -> tuple[float, float]:
    """The two γ that are a network's first and last time; they stay while a learned γ moves.

    Raises:
        ValueError: parameters that do not give an increasing γ.
    """
    if config.kind in ("learned", "table"):
        return config.gamma_min, config.gamma_max
    gamma = make_schedule(config).gamma
    return float(gamma[0]), float(gamma[-1])


def _gamma_from_log_alpha_squared(log_alpha_squared: Float64) -> Float64:
    """γ = log(σ²/α²), with σ² = 1 − α² computed without cancellation."""
    return np.asarray(np.log(-np.expm1(log_alpha_squared)) - log_alpha_squared)


def _round_significand(values: Float64) -> Float64:
    """Round to `COEFFICIENT_BITS` significant bits."""
    significand, exponent = np.frexp(values)
    scale = 2.0**COEFFICIENT_BITS
    return np.ldexp(np.rint(significand * scale) / scale, exponent)
