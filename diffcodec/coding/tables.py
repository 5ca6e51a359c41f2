"""The last stage's pixel probabilities as integer frequencies.

DDPM's discretized Gaussian (Ho, Jain, Abbeel 2020, eq. 13) on the levels 0…255: level k has the
mass of N(mean, σ²) between k − ½ and k + ½ levels, the first and the last level all the rest.
Means lie on a grid of 1/16 level and σ on a grid of 256 logarithmic steps, so that every table is
one of finitely many, made by ``gaussian`` with the same integers on every platform.
"""

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from diffcodec.coding.gaussian import exponential, normal_cdf

LEVELS = 256
MEAN_STEPS = 16
"""Steps of the mean's grid in one level."""
MAX_MEAN_GRID = (LEVELS - 1) * MEAN_STEPS
SCALE_COUNT = 256
PRECISION_BITS = 24
TOTAL_FREQUENCY = 1 << PRECISION_BITS
FREE_FREQUENCY = TOTAL_FREQUENCY - LEVELS
"""What is shared out by probability after every level has been given one."""

_SMALLEST_SIGMA = 0.05
_LN_SIGMA_RANGE = 7.600902459542082
_EDGE_OFFSETS = (LEVELS - 1) * MEAN_STEPS


def round_means(means: NDArray[np.floating]) -> NDArray[np.int32]:
    """Means in levels, any float array, to the grid: rint(16 · mean) clipped to 0…4080.

    >>> round_means(np.array([-3.0, 127.5, 0.1])).tolist()
    [0, 2040, 2]
    """
    steps = np.rint(np.asarray(means, dtype=np.float64) * MEAN_STEPS)
    return np.clip(steps, 0, MAX_MEAN_GRID).astype(np.int32)


def sigma_levels(scale_index: int) -> float:
    """σ in levels: 0.05 · 2000^(i/255), i = 0…255, by ``gaussian.exponential``.

    >>> round(sigma_levels(0), 3), round(sigma_levels(255), 3)
    (0.05, 100.0)
    """
    if not 0 <= scale_index < SCALE_COUNT:
        raise ValueError(f"scale index must be 0 to {SCALE_COUNT - 1}, not {scale_index}")
    exponent = np.float64(scale_index) * _LN_SIGMA_RANGE / (SCALE_COUNT - 1)
    return float(_SMALLEST_SIGMA * exponential(exponent))


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


@lru_cache(maxsize=8)
def _phases(scale_index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Masses and cumulative masses by the fraction of the mean: float32[16, 511] each.

    Row p, column q belong to d = 16·(q − 255) + p. All are integers below 2^24: exact.
    """
    cumulative = _cumulative(scale_index)
    columns = 2 * LEVELS - 1
    below = cumulative[:-MEAN_STEPS].reshape(columns, MEAN_STEPS)
    above = cumulative[MEAN_STEPS:].reshape(columns, MEAN_STEPS)
    mass = np.ascontiguousarray((above - below).T, dtype=np.float32)
    return mass, np.ascontiguousarray(below.T, dtype=np.float32)


def free_frequencies(mean_grid: NDArray[np.integer], scale_index: int) -> NDArray[np.float32]:
    """``frequencies`` less one, exact in float32: float32[N, 256], each row summing to 2^24 − 256.

    Raises ValueError for a mean off the grid or an unknown scale.
    """
    mean = np.asarray(mean_grid, dtype=np.int64)
    if mean.size and (mean.min() < 0 or mean.max() > MAX_MEAN_GRID):
        raise ValueError(f"means must be 0 to {MAX_MEAN_GRID} sixteenths of a level")
    mass, below = _phases(scale_index)
    phase = -mean % MEAN_STEPS
    # Level 0 lies −mean sixteenths from the mean: column (−mean − phase)/16 + 255.
    first = (-mean - phase) // MEAN_STEPS + LEVELS - 1
    rows: NDArray[np.float32] = sliding_window_view(mass, LEVELS, axis=1)[phase, first]
    rows[:, 0] += below[phase, first]
    last = first + LEVELS - 1
    rows[:, -1] += np.float32(FREE_FREQUENCY) - below[phase, last] - mass[phase, last]
    return rows


def frequencies(mean_grid: NDArray[np.integer], scale_index: int) -> NDArray[np.uint32]:
    """Integer frequencies of the 256 levels: uint32[N, 256], all ≥ 1, each row summing to 2^24.

    Cumulatively C_k = rint(Φ((k − ½ − mean)/σ) · (2^24 − 256)) + k for k = 1…255, C_0 = 0 and
    C_256 = 2^24. Raises ValueError for a mean off the grid or an unknown scale.

    >>> table = frequencies(np.array([1608]), scale_index=0)
    >>> table.sum().item() == 1 << 24, table[0, 99:103].tolist()
    (True, [1, 8388481, 8388481, 1])
    """
    return free_frequencies(mean_grid, scale_index).astype(np.uint32) + np.uint32(1)


class LevelStatistics:
    """How often each pair of level and mean occurs, as far as code lengths depend on it."""

    def __init__(self, levels: NDArray[np.uint8], mean_grid: NDArray[np.integer]) -> None:
        """From ``levels``, uint8[N], and ``mean_grid``, int[N]."""
        level = np.asarray(levels, dtype=np.int64).ravel()
        offset = level * MEAN_STEPS - np.asarray(mean_grid, dtype=np.int64).ravel() + _EDGE_OFFSETS
        size = 2 * _EDGE_OFFSETS + MEAN_STEPS
        lowest, highest = level == 0, level == LEVELS - 1
        self._lowest = np.bincount(offset[lowest], minlength=size)
        self._highest = np.bincount(offset[highest], minlength=size)
        self._inner = np.bincount(offset[~(lowest | highest)], minlength=size)

    def ideal_bits(self, scale_index: int) -> float:
        """Σ log2(2^24/frequency) over all levels."""
        cumulative = _cumulative(scale_index).astype(np.float64)
        below, above = cumulative[:-MEAN_STEPS], cumulative[MEAN_STEPS:]
        bits = 0.0
        for count, free in (
            (self._inner, above - below),
            (self._lowest, above),
            (self._highest, FREE_FREQUENCY - below),
        ):
            used = np.flatnonzero(count)
            bits += float((count[used] * (PRECISION_BITS - np.log2(free[used] + 1.0))).sum())
        return bits


def ideal_bits(
    levels: NDArray[np.uint8], mean_grid: NDArray[np.integer], scale_index: int
) -> float:
    """Code length in bits of ``levels``, uint8[N], under ``frequencies``; no coder falls below.

    >>> round(ideal_bits(np.array([100], np.uint8), np.array([1608]), scale_index=0), 4)
    1.0
    """
    return LevelStatistics(levels, mean_grid).ideal_bits(scale_index)


def best_scale_index(levels: NDArray[np.uint8], mean_grid: NDArray[np.integer]) -> int:
    """The scale index of least ``ideal_bits``: every 16th, then a neighbourhood of the best.

    >>> best_scale_index(np.array([90, 100, 112], np.uint8), np.full(3, 1608))
    174
    """
    statistics = LevelStatistics(levels, mean_grid)
    centre = min(range(0, SCALE_COUNT, 16), key=statistics.ideal_bits)
    nearby = range(max(0, centre - 16), min(SCALE_COUNT, centre + 17))
    return min(nearby, key=statistics.ideal_bits)
