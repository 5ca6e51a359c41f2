"""Rounding by which two machines agree on numbers that each reckons a little differently.

A float32 network gives other last digits on another kind of processor. Rounded to a grid its
numbers are the same on both, but for those that lie about halfway between two points of it. So the
encoder shifts the grid, by one of 256 parts of its step, to where none comes near such an edge, and
tells the shift (docs/format.md, Numeric contract; what it buys: docs/coding.md, Other processors).
Positions are numbers in steps of their grid, whose points are the whole numbers.
"""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

SHIFTS: Float64 = np.array([(number + 0.5) / 256.0 - 0.5 for number in range(256)])
"""Added to positions before they are rounded; each is its own number's."""
SHIFTS.flags.writeable = False


def safest_shifts(
    positions: NDArray[np.floating], owners: NDArray[np.integer], count: int
) -> NDArray[np.intp]:
    """For each of ``count`` owners the number of the shift that keeps its positions off the edges.

    Args:
        positions: float [N], N ≥ 0.
        owners: whose each position is, int [N], 0…count − 1.

    >>> safest_shifts(np.array([0.2, 0.31, 7.9]), np.array([0, 0, 1]), 2).tolist()
    [62, 153]
    """
    order = np.argsort(owners, kind="stable")
    ends = np.searchsorted(np.asarray(owners)[order], np.arange(1, count))
    fractions = np.mod(np.asarray(positions, dtype=np.float64)[order], 1.0)
    return np.array([_safest_shift(own) for own in np.split(fractions, ends)], dtype=np.intp)


def _safest_shift(fractions: Float64) -> int:
    """The first shift whose edges are furthest from the nearest fraction, around the circle."""
    if not len(fractions):
        return 0
    ascending = np.sort(fractions)
    edges = np.mod(0.5 - SHIFTS, 1.0)
    above = np.searchsorted(ascending, edges)
    distance_up = np.mod(ascending[above % len(ascending)] - edges, 1.0)
    distance_down = np.mod(edges - ascending[above - 1], 1.0)
    return int(np.minimum(distance_up, distance_down).argmax())


def rounded(positions: NDArray[np.floating], shift: float | Float64) -> Float64:
    """rint(position + shift), the point of the grid that both ends come to, float64.

    Args:
        shift: of `SHIFTS`, one or one for each position (any shape that broadcasts).

    >>> rounded(np.array([1.3, 1.7]), SHIFTS[0]).tolist()
    [1.0, 1.0]
    """
    return np.asarray(np.rint(np.asarray(positions, dtype=np.float64) + shift))
