"""x̂_0 between two evaluations of the network: Wiener's estimate with a covariance for every pixel.

At a hop's beginning the network says x ~ N(x̂_0, Σ), Σ a 3×3 matrix a pixel in its LDLᵀ form
(`PixelEstimate`). The hop's packets show y = x + noise of precision Δ; what both say together is
the posterior mean (Σ⁻¹ + Δ)⁻¹ (Σ⁻¹ x̂_0 + Δ y). Everything is float64 and elementwise.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffcodec.codec.model import PixelEstimate

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WienerEstimate:
    """N(mean, precision⁻¹) for each pixel.

    Attributes:
        mean: x̂_0, float64 [G, 3, S, S].
        precision: the symmetric Σ⁻¹ as its entries 00, 11, 22, 10, 20, 21, float64 [G, S, S] each.
    """

    mean: Float64
    precision: tuple[Float64, Float64, Float64, Float64, Float64, Float64]

    @staticmethod
    def of(estimate: PixelEstimate, error: float) -> "WienerEstimate":
        """What the network says, its variances scaled so that their mean is ``error``.

        ``error`` is the mean squared error that the file tells: the network's claims are right in
        proportion, not always in size.
        """
        # As many scalar names as 3×3 matrices have entries: loops over them would hide the algebra.
        v0, v1, v2 = (estimate.variance[:, channel] for channel in range(3))
        a10, a20, a21 = (estimate.mixing[:, entry] for entry in range(3))
        variance_1 = a10 * a10 * v0 + v1
        variance_2 = a20 * a20 * v0 + a21 * a21 * variance_1 + 2.0 * (a20 * a21) * (a10 * v0) + v2
        total = v0 + variance_1 + variance_2
        # The sum is the exact one, rounded once: no order of summation has a say.
        scale = math.fsum(total.ravel().tolist()) / (3 * total.size) / error
        w0, w1, w2 = scale / v0, scale / v1, scale / v2
        precision = (
            w0 + a10 * a10 * w1 + a20 * a20 * w2,
            w1 + a21 * a21 * w2,
            w2,
            a20 * a21 * w2 - a10 * w1,
            -(a20 * w2),
            -(a21 * w2),
        )
        return WienerEstimate(estimate.mean, precision)

    def updated(self, gain: float, weighted: Float64) -> Float64:
        """The posterior mean, clipped to [−1, 1], float64 [G, 3, S, S].

        Args:
            gain: Δ, the precision of what was shown since.
            weighted: Δ y, float64 [G, 3, S, S].
        """
        p00, p11, p22, p10, p20, p21 = self.precision
        d0, d1, d2 = p00 + gain, p11 + gain, p22 + gain
        b = weighted - gain * self.mean
        b0, b1, b2 = b[:, 0], b[:, 1], b[:, 2]
        # LDLᵀ of the sum, then two triangular solutions.
        l10, l20 = p10 / d0, p20 / d0
        d1 = d1 - l10 * p10
        l21 = (p21 - l20 * p10) / d1
        d2 = d2 - l20 * p20 - l21 * l21 * d1
        y1 = b1 - l10 * b0
        y2 = b2 - l20 * b0 - l21 * y1
        x2 = y2 / d2
        x1 = y1 / d1 - l21 * x2
        x0 = b0 / d0 - l10 * x1 - l20 * x2
        return np.clip(self.mean + np.stack([x0, x1, x2], axis=1), -1.0, 1.0)
