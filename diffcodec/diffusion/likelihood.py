"""DDPM's discretized Gaussian decoder (arXiv:2006.11239, eq. 13) as a probability.

The codec's last stage turns the same distribution into integer tables (`diffcodec.coding.tables`);
this is the float64 reference that bounds are computed with.
"""

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

LEVELS = 256
SMALLEST_PROBABILITY = 1e-300
SMALLEST_SCALE = 0.05
"""Standard deviation in levels below which no model's word is taken."""

_erfc = np.frompyfunc(math.erfc, 1, 1)


def level_probabilities(
    levels: NDArray[np.integer], mean: Float64, scale: float | Float64
) -> Float64:
    """P(level) under N(mean, scale²) integrated over the level's unit bin, edges ±∞ at 0 and 255.

    Args:
        levels: integers 0…255, broadcastable with ``mean``.
        mean: in levels (0…255 scale, any real).
        scale: standard deviation in levels, positive.

    Returns:
        float64 probabilities, at least 1e-300, so that their logarithm is finite.

    Raises:
        ValueError: a scale that is not positive.
    """
    if np.any(np.asarray(scale) <= 0):
        raise ValueError("the scale of the discretized Gaussian must be positive")
    lower = np.where(levels == 0, -np.inf, (levels - 0.5 - mean) / scale)
    upper = np.where(levels == LEVELS - 1, np.inf, (levels + 0.5 - mean) / scale)
    # Mirror bins right of the mean to the left: a difference of two small tails keeps its digits.
    mirrored = lower > 0
    left = np.where(mirrored, -upper, lower)
    right = np.where(mirrored, -lower, upper)
    mass = _standard_normal_cdf(right) - _standard_normal_cdf(left)
    return np.maximum(mass, SMALLEST_PROBABILITY)


def level_nats(levels: NDArray[np.integer], mean: Float64, scale: float | Float64) -> Float64:
    """−log P(level) in nats, float64, of the broadcast shape."""
    return -np.log(level_probabilities(levels, mean, scale))


def fitted_scale(levels: NDArray[np.integer], mean: Float64) -> float:
    """Scale in levels that fits the errors ``levels − mean``: their root mean square.

    Quantization's own variance 1/12 is taken off, since the bins put it back; at least 0.05.
    """
    mean_square = float(np.mean((levels - mean) ** 2))
    return math.sqrt(max(mean_square - 1.0 / 12.0, SMALLEST_SCALE**2))


def _standard_normal_cdf(values: Float64) -> Float64:
    return 0.5 * np.asarray(_erfc(-values / math.sqrt(2.0)), dtype=np.float64)
