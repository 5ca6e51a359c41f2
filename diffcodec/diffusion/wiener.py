"""x̂_0 between two evaluations of the network: Wiener's estimate with a covariance of the image.

At a hop's beginning the network says x ~ N(x̂_0, Σ), how channels of a pixel lean on each other and
how uncertain each is; the model's error spectrum says how errors of neighbouring pixels are alike.
The hop's packets show y = x + noise of precision Δ; what both say together is the posterior mean
x̂_0 + Σ (Σ + I/Δ)⁻¹ (y − x̂_0), which conjugate gradients approach. Everything is float64,
elementwise or by sums that are exact in any order (`diffcodec.diffusion.cosine`).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffcodec.diffusion.cosine import cosine_transform, inverse_cosine_transform, tile_dots

Float64 = NDArray[np.float64]

GRADIENT_STEPS = 3
GAINS = tuple(2.0**exponent for exponent in range(-6, 4))
"""Δ e, e the mean squared error before, for which models tell what an update leaves of e."""


@dataclass(frozen=True, eq=False)
class WienerEstimate:
    """N(mean, Σ) of G tiles, Σ = L D F P Fᵀ D Lᵀ.

    L is the channels' chain, D the deviations, F the inverse cosine transform and P the spectrum.

    Attributes:
        mean: x̂_0, float64 [G, C, S, S].
        deviation: the diagonal of D, float64 [G, C, S, S].
        mixing: what L is made of: a_10, a_20, a_21, …, float64 [G, C(C − 1)/2, S, S].
        power: the diagonal of P, float64 [C, S, S], of mean one.
    """

    mean: Float64
    deviation: Float64
    mixing: Float64
    power: Float64

    @staticmethod
    def of(
        mean: Float64,
        variance: Float64,
        mixing: Float64,
        power: Float64,
        error: float,
        inside: NDArray[np.bool_] | None = None,
    ) -> "WienerEstimate":
        """What the network says, its variances scaled so that their mean is ``error``.

        ``error`` is the mean squared error that the file tells: the network's claims are right in
        proportion, not always in size.

        Args:
            variance: of each channel given the ones before it, float64 [G, C, S, S].
            inside: which pixels the mean is over, bool [G, S, S]; all if None.
        """
        total = pixel_variances(variance, mixing)
        if inside is None:
            inside = np.ones_like(total[:, 0], dtype=np.bool_)
        # The sum is the exact one, rounded once: no order of summation has a say.
        # Tile by tile: a list of all numbers would be as large as all arrays together.
        values = itertools.chain.from_iterable(
            tile[:, where].ravel().tolist() for tile, where in zip(total, inside, strict=True)
        )
        scale = error / (math.fsum(values) / (total.shape[1] * int(inside.sum())))
        return WienerEstimate(mean, np.sqrt(scale * variance), mixing, power)

    def updated(self, gain: float, weighted: Float64) -> Float64:
        """The posterior mean, clipped to [−1, 1], float64 [G, C, S, S].

        `GRADIENT_STEPS` of conjugate gradients (Hestenes and Stiefel 1952) solve
        (Δ Σ + I) w = Δ (y − x̂_0) in each tile, and the mean moves by Σ w.

        Args:
            gain: Δ, the precision of what was shown since.
            weighted: Δ y, float64 [G, C, S, S].
        """
        residual = weighted - gain * self.mean
        direction, solution = residual, np.zeros_like(residual)
        energy = tile_dots(residual, residual)
        for further in range(GRADIENT_STEPS):
            if further:
                before, energy = energy, tile_dots(residual, residual)
                direction = residual + _ratio(energy, before) * direction
            image = gain * self._covariance_times(direction) + direction
            step = _ratio(energy, tile_dots(direction, image))
            solution = solution + step * direction
            residual = residual - step * image
        return np.clip(self.mean + self._covariance_times(solution), -1.0, 1.0)

    def _covariance_times(self, w: Float64) -> Float64:
        """Σ w, from right to left."""
        channels = w.shape[1]
        parts = [w[:, channel] for channel in range(channels)]
        for channel in reversed(range(channels)):
            for later in range(channel + 1, channels):
                parts[channel] = parts[channel] + self._weight(later, channel) * parts[later]
        innovations = self.deviation * np.stack(parts, axis=1)
        spectrum = self.power * cosine_transform(innovations)
        innovations = self.deviation * inverse_cosine_transform(spectrum)
        parts = [innovations[:, channel] for channel in range(channels)]
        for channel in range(channels):
            for earlier in range(channel):
                parts[channel] = parts[channel] + self._weight(channel, earlier) * parts[earlier]
        return np.stack(parts, axis=1)

    def _weight(self, channel: int, earlier: int) -> Float64:
        """a_ce, float64 [G, S, S]."""
        return self.mixing[:, channel * (channel - 1) // 2 + earlier]


def pixel_variances(variance: Float64, mixing: Float64) -> Float64:
    """Variance of every coordinate, whatever the others are, float64 [G, C, S, S].

    Args:
        variance: of each channel given the ones before it, float64 [G, C, S, S].
        mixing: how channels lean on earlier ones, float64 [G, C(C − 1)/2, S, S].
    """
    covariance: dict[tuple[int, int], Float64] = {}
    for channel in range(variance.shape[1]):
        first = channel * (channel - 1) // 2
        weights = [mixing[:, first + earlier] for earlier in range(channel)]
        for other in range(channel):
            total = np.zeros_like(variance[:, channel])
            for earlier, weight in enumerate(weights):
                pair = max(earlier, other), min(earlier, other)
                total = total + weight * covariance[pair]
            covariance[channel, other] = total
        own = variance[:, channel]
        for earlier, weight in enumerate(weights):
            own = own + weight * covariance[channel, earlier]
        covariance[channel, channel] = own
    return np.stack([covariance[c, c] for c in range(variance.shape[1])], axis=1)


def _ratio(above: Float64, below: Float64) -> Float64:
    """``above``/``below``, 0 where a tile has nothing left to solve."""
    return np.where(below > 0.0, above / np.where(below > 0.0, below, 1.0), 0.0)
