"""The last stage's pixel probabilities as integer frequencies.

DDPM's discretized Gaussian (Ho, Jain, Abbeel 2020, eq. 13) on the levels 0…255: level k has the
mass of N(mean, σ²) between k − ½ and k + ½ levels, the first and the last level all the rest.
Means lie on a grid of 1/16 level and σ on a grid of 256 logarithmic steps, so that every table is
one of finitely many, made by ``gaussian`` with the same integers on every platform.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffcodec.coding.agreement import rounded
from diffcodec.coding.gaussian import exponential, normal_cdf

Float64 = NDArray[np.float64]

LEVELS = 256
MEAN_STEPS = 16
"""Steps of the mean's grid in one level."""
MAX_MEAN_GRID = (LEVELS - 1) * MEAN_STEPS
SCALE_COUNT = 256
PRECISION_BITS = 24
TOTAL_FREQUENCY = 1 << PRECISION_BITS
FREE_FREQUENCY = TOTAL_FREQUENCY - LEVELS
"""What is shared out by probability after every level has been given one."""

SMALLEST_SIGMA = 0.05
"""Of the tables, in levels. Training adds its square to every variance, and so do these."""
_LN_SIGMA_RANGE = 7.600902459542082
_LN_VARIANCE_STEP = 2.0 * _LN_SIGMA_RANGE / (SCALE_COUNT - 1)
OFFSET_STEPS = 4
"""Steps of σ's grid, together 12.7 %, in one step of an image's scale offset."""
MIN_SCALE_OFFSET, MAX_SCALE_OFFSET = -8, 7
_EDGE_OFFSETS = (LEVELS - 1) * MEAN_STEPS


def mean_positions(means: NDArray[np.floating]) -> Float64:
    """Means in levels on their grid: 16 · mean clipped to 0…4080, float64 of the same shape."""
    return np.clip(np.asarray(means, dtype=np.float64) * MEAN_STEPS, 0, MAX_MEAN_GRID)


def round_means(means: NDArray[np.floating], shift: float | Float64 = 0.0) -> NDArray[np.int32]:
    """Means in levels, any float array, to the nearest point of their grid, int32.

    Args:
        shift: of the grid (`agreement.SHIFTS`), one or one for each mean.

    >>> round_means(np.array([-3.0, 127.5, 0.1])).tolist()
    [0, 2040, 2]
    """
    return rounded(mean_positions(means), shift).astype(np.int32)


def sigma_levels(scale_index: int) -> float:
    """σ in levels: 0.05 · 2000^(i/255), i = 0…255, by ``gaussian.exponential``.

    >>> round(sigma_levels(0), 3), round(sigma_levels(255), 3)
    (0.05, 100.0)
    """
    if not 0 <= scale_index < SCALE_COUNT:
        raise ValueError(f"scale index must be 0 to {SCALE_COUNT - 1}, not {scale_index}")
    exponent = np.float64(scale_index) * _LN_SIGMA_RANGE / (SCALE_COUNT - 1)
    return float(SMALLEST_SIGMA * exponential(exponent))


@lru_cache(maxsize=SCALE_COUNT)
def _cumulative(scale_index: int) -> NDArray[np.int32]:
    """T(d) = rint(Φ((d − 8)/16σ) · (2^24 − 256)), d = 16·level − mean = −4080…4111: int32[8192].

    The mass below the lower edge of a level whose centre lies d/16 levels above the mean.
    """
    distance = np.arange(-_EDGE_OFFSETS, _EDGE_OFFSETS + 2 * MEAN_STEPS, dtype=np.float64)
    argument = (distance - MEAN_STEPS // 2) / MEAN_STEPS / sigma_levels(scale_index)
    steps = np.rint(normal_cdf(argument) * FREE_FREQUENCY).astype(np.int32)
    # Φ is computed within 1e-15, not provably monotone to the last bit; frequencies must be.
    return np.maximum.accumulate(steps)


@lru_cache(maxsize=1)
def _variance_borders() -> NDArray[np.float64]:
    """Where the nearest σ changes, on a logarithmic scale, as variances: float64[255]."""
    sigma = np.array([sigma_levels(index) for index in range(SCALE_COUNT)])
    borders: NDArray[np.float64] = sigma[:-1] * sigma[1:]
    return borders


def scale_positions(variance: NDArray[np.floating]) -> Float64:
    """Where on σ's grid a Gaussian of ``variance`` + 0.05², in squared levels, lies, 0…255.

    Only encoders ask, whose logarithm need not be everyone's.
    """
    doubled = np.log(_wanted(variance) / (SMALLEST_SIGMA * SMALLEST_SIGMA))
    return np.clip(doubled / _LN_VARIANCE_STEP, 0, SCALE_COUNT - 1)


def scale_indices(
    variance: NDArray[np.floating], shift: float | Float64 = 0.0
) -> NDArray[np.int64]:
    """The indices of the tables for a Gaussian of ``variance`` + 0.05², in squared levels.

    The Gaussian is the one that bins of one level are cut from, not that of whole levels, whose
    rounding adds 1/12.

    Args:
        shift: of σ's grid (`agreement.SHIFTS`), one or one for each variance.

    >>> scale_indices(np.array([0.0, 1.0, 1e4, 1e9])).tolist()
    [0, 101, 255, 255]
    """
    wanted = _wanted(variance) * exponential(np.asarray(shift) * _LN_VARIANCE_STEP)
    return np.searchsorted(_variance_borders(), wanted).astype(np.int64)


def _wanted(variance: NDArray[np.floating]) -> Float64:
    return np.asarray(variance, dtype=np.float64) + SMALLEST_SIGMA * SMALLEST_SIGMA


def _cumulative_rows(
    mean_grid: NDArray[np.integer], scale_index: int | NDArray[np.integer], edges: NDArray[np.int64]
) -> NDArray[np.int32]:
    """T(16·edge − mean) for each mean and its edges: int32 of the broadcast shape.

    Raises ValueError for a mean off the grid or an unknown scale.
    """
    mean = np.asarray(mean_grid, dtype=np.int64)
    if mean.size and (mean.min() < 0 or mean.max() > MAX_MEAN_GRID):
        raise ValueError(f"means must be 0 to {MAX_MEAN_GRID} sixteenths of a level")
    if not mean.size:
        return np.empty((*mean.shape, edges.shape[-1]), dtype=np.int32)
    used, which = np.unique(scale_index, return_inverse=True)
    tables = np.stack([_cumulative(int(index)) for index in used])
    which = np.broadcast_to(which.reshape(np.shape(scale_index)), mean.shape)
    first = which * tables.shape[1] + _EDGE_OFFSETS - mean
    rows: NDArray[np.int32] = tables.ravel()[first[..., None] + MEAN_STEPS * edges]
    return rows


def free_frequencies(
    mean_grid: NDArray[np.integer], scale_index: int | NDArray[np.integer]
) -> NDArray[np.float32]:
    """``frequencies`` less one, exact in float32: float32[N, 256], each row summing to 2^24 − 256.

    Raises ValueError for a mean off the grid or an unknown scale.
    """
    below = _cumulative_rows(mean_grid, scale_index, np.arange(LEVELS + 1))
    below[:, 0], below[:, -1] = 0, FREE_FREQUENCY
    return np.diff(below, axis=1).astype(np.float32)


def frequencies(
    mean_grid: NDArray[np.integer], scale_index: int | NDArray[np.integer]
) -> NDArray[np.uint32]:
    """Integer frequencies of the 256 levels: uint32[N, 256], all ≥ 1, each row summing to 2^24.

    Cumulatively C_k = rint(Φ((k − ½ − mean)/σ) · (2^24 − 256)) + k for k = 1…255, C_0 = 0 and
    C_256 = 2^24. ``scale_index`` is one for all means or int[N]. Raises ValueError for a mean off
    the grid or an unknown scale.

    >>> table = frequencies(np.array([1608]), scale_index=0)
    >>> table.sum().item() == 1 << 24, table[0, 99:103].tolist()
    (True, [1, 8388481, 8388481, 1])
    """
    return free_frequencies(mean_grid, scale_index).astype(np.uint32) + np.uint32(1)


def ideal_bits(
    levels: NDArray[np.uint8],
    mean_grid: NDArray[np.integer],
    scale_index: int | NDArray[np.integer],
) -> float:
    """Code length in bits of ``levels``, uint8[N], under ``frequencies``; no coder falls below.

    >>> round(ideal_bits(np.array([100], np.uint8), np.array([1608]), scale_index=0), 4)
    1.0
    """
    level = np.asarray(levels, dtype=np.int64).ravel()
    edges = level[:, None] + np.arange(2)
    below = _cumulative_rows(np.asarray(mean_grid).ravel(), scale_index, edges)
    below[level == 0, 0] = 0
    below[level == LEVELS - 1, 1] = FREE_FREQUENCY
    used = np.diff(below, axis=1) + 1.0
    return float((PRECISION_BITS - np.log2(used)).sum())


def shifted(scale_index: NDArray[np.integer], offset: int) -> NDArray[np.int64]:
    """Indices moved by ``offset`` times OFFSET_STEPS steps of σ's grid, held at its ends."""
    moved = np.asarray(scale_index, dtype=np.int64) + OFFSET_STEPS * offset
    return np.clip(moved, 0, SCALE_COUNT - 1)


def best_scale_offset(
    levels: NDArray[np.uint8], mean_grid: NDArray[np.integer], scale_index: NDArray[np.integer]
) -> int:
    """The offset −8…7 of least ``ideal_bits``.

    >>> levels, means = np.array([90, 100, 112], np.uint8), np.full(3, 1608)
    >>> best_scale_offset(levels, means, np.full(3, 150))
    6
    """
    return min(
        range(MIN_SCALE_OFFSET, MAX_SCALE_OFFSET + 1),
        key=lambda offset: ideal_bits(levels, mean_grid, shifted(scale_index, offset)),
    )
