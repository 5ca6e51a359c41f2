"""The Gaussian process: q(z_t | x), q(z_s | z_t, x), p(z_s | z_t), and what the codec pays for it.

Notation and formulas are VDM's (Kingma, Salimans, Poole and Ho 2021, arXiv:2107.00630, appendix A),
for any s < t of the schedule's grid, so a hop may skip steps. Arrays are float64 and of any shape
unless said otherwise; images are scaled to [−1, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffcodec.diffusion.schedule import Schedule

Float64 = NDArray[np.float64]
Steps = int | NDArray[np.integer]

HALF_RANGE = 127.5


def levels_to_signal(levels: NDArray[np.uint8]) -> Float64:
    """8-bit level k to k/127.5 − 1, float64."""
    return levels.astype(np.float64) / HALF_RANGE - 1.0


def signal_to_levels(signal: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The nearest 8-bit level of each value, clipped to 0…255."""
    levels = np.rint((np.asarray(signal, dtype=np.float64) + 1.0) * HALF_RANGE)
    return np.clip(levels, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Transition:
    """A Gaussian with mean ``z_coefficient`` · z_t + ``x_coefficient`` · x and a scalar variance.

    With the image for x it is q(z_s | z_t, x); with x̂_0(z_t) for x it is the model's p(z_s | z_t).
    """

    z_coefficient: float
    x_coefficient: float
    variance: float

    def mean(self, z_t: Float64, x: Float64) -> Float64:
        """Mean of z_s, of the shape of ``z_t``."""
        return self.z_coefficient * z_t + self.x_coefficient * x


def q_marginal(schedule: Schedule, x: Float64, t: int) -> tuple[Float64, float]:
    """Mean and variance of q(z_t | x) = N(α_t x, σ_t² I)."""
    return schedule.alpha[t] * x, float(schedule.sigma_squared[t])


def q_forward(schedule: Schedule, s: int, t: int) -> Transition:
    """q(z_t | z_s) = N(α_{t|s} z_s, σ²_{t|s} I) for s < t (VDM, eq. 23); no term in x."""
    _check_order(schedule, s, t)
    ratio = schedule.alpha[t] / schedule.alpha[s]
    variance = schedule.sigma_squared[t] * _one_minus_snr_ratio(schedule, s, t)
    return Transition(float(ratio), 0.0, float(variance))


def q_posterior(schedule: Schedule, s: int, t: int) -> Transition:
    """q(z_s | z_t, x) for s < t (VDM, eqs. 25–27).

    Raises:
        ValueError: unless 0 ≤ s < t ≤ T.
    """
    _check_order(schedule, s, t)
    forward = q_forward(schedule, s, t)
    sigma_squared_s = schedule.sigma_squared[s]
    sigma_squared_t = schedule.sigma_squared[t]
    return Transition(
        z_coefficient=float(forward.z_coefficient * sigma_squared_s / sigma_squared_t),
        x_coefficient=float(schedule.alpha[s] * forward.variance / sigma_squared_t),
        variance=float(forward.variance * sigma_squared_s / sigma_squared_t),
    )


def hop_kl_nats(schedule: Schedule, s: int, t: int, squared_error: float) -> float:
    """KL(q(z_s | z_t, x) ‖ p(z_s | z_t)) = ½ (SNR(s) − SNR(t)) ‖x − x̂_0(z_t)‖², in nats.

    The hop's L_t of DDPM (arXiv:2006.11239, eq. 5) in VDM's form (eq. 15).

    Args:
        squared_error: ‖x − x̂_0(z_t)‖², summed over all dimensions, signal scaled to [−1, 1].
    """
    _check_order(schedule, s, t)
    return float(0.5 * (schedule.snr[s] - schedule.snr[t]) * squared_error)


def reverse_log_variance(
    schedule: Schedule, s: Steps, t: Steps, interpolation: float | Float64
) -> Float64:
    """log Σ of p(z_s | z_t): v log β_t + (1 − v) log β̃_t (improved DDPM, 2102.09672, eq. 15).

    β̃ is the posterior's variance (`q_posterior`), β = σ²_{t|s} the forward hop's (`q_forward`). So
    v = 0 and v = 1 are the two fixed choices of DDPM (arXiv:2006.11239, §3.2).

    Args:
        s, t: steps, or integer arrays of them that broadcast with ``interpolation``.
        interpolation: v, one number or one a coordinate.

    Raises:
        ValueError: unless 0 ≤ s < t ≤ T.
    """
    _check_order(schedule, s, t)
    log_posterior = np.log(schedule.sigma_squared[s] * _one_minus_snr_ratio(schedule, s, t))
    return np.asarray(log_posterior + interpolation * _log_variance_ratio(schedule, s, t))


def reverse_kl_nats(
    schedule: Schedule,
    s: Steps,
    t: Steps,
    squared_error: Float64,
    interpolation: float | Float64 = 0.0,
) -> Float64:
    """KL(q(z_s | z_t, x) ‖ p(z_s | z_t)) of each coordinate in nats, whatever p's variance.

    ½ (e^{−u} − 1 + u + e^{−u} (SNR(s) − SNR(t)) (x − x̂_0)²) with u = log Σ/β̃: with v = 0 the sum
    over all coordinates is `hop_kl_nats`.

    Args:
        s, t: steps, or integer arrays of them that broadcast with ``squared_error``.
        squared_error: (x − x̂_0(z_t))² of each coordinate, signal scaled to [−1, 1].
        interpolation: v of `reverse_log_variance`, one number or one a coordinate.

    Returns:
        float64 of the broadcast shape.
    """
    _check_order(schedule, s, t)
    excess = interpolation * _log_variance_ratio(schedule, s, t)
    gain = schedule.snr[s] - schedule.snr[t]
    return np.asarray(0.5 * (np.expm1(-excess) + excess + np.exp(-excess) * gain * squared_error))


def prior_kl_nats(schedule: Schedule, x: Float64) -> float:
    """L_T = KL(q(z_T | x) ‖ N(0, I)) in nats, summed over all dimensions of ``x``."""
    mean, variance = q_marginal(schedule, x, schedule.steps)
    # log1p keeps the digits of a variance near one.
    deviation = -schedule.alpha_squared[-1]
    per_dimension = 0.5 * (variance + mean**2 - 1.0 - np.log1p(deviation))
    return float(per_dimension.sum())


def _one_minus_snr_ratio(schedule: Schedule, s: Steps, t: Steps) -> Float64:
    """σ²_{t|s} / σ_t² = 1 − SNR(t)/SNR(s) (VDM, eq. 24, divided by σ_t²)."""
    return np.asarray(1.0 - schedule.snr[t] / schedule.snr[s])


def _log_variance_ratio(schedule: Schedule, s: Steps, t: Steps) -> Float64:
    """log β/β̃ = log σ_t²/σ_s²."""
    return np.asarray(np.log(schedule.sigma_squared[t] / schedule.sigma_squared[s]))


def _check_order(schedule: Schedule, s: Steps, t: Steps) -> None:
    if not np.all(np.less_equal(0, s) & np.less(s, t) & np.less_equal(t, schedule.steps)):
        raise ValueError(f"a hop needs 0 <= s < t <= {schedule.steps}, got s={s}, t={t}")
