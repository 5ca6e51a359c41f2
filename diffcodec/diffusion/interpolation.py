"""Curves between points, the same bits on every platform."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def interpolate(x: ArrayLike, points: ArrayLike, values: ArrayLike) -> Float64:
    """Linear between ``points``, constant beyond their ends.

    As `numpy.interp`, but one NumPy call per operation so that no compiler may fuse two of them:
    hop plans are made of such curves at both ends of a file.

    Args:
        x: where, of any shape.
        points: increasing, [K], K ≥ 1.
        values: at each of them, [K, …].

    Returns:
        float64 of the shape of ``x`` and then that of one value.
    """
    at, points = np.asarray(x, dtype=np.float64), np.asarray(points, dtype=np.float64)
    values = np.asarray(values, dtype=np.float64)
    if len(points) == 1:
        return np.broadcast_to(values[0], at.shape + values.shape[1:])
    at = np.clip(at, points[0], points[-1])
    left = np.clip(np.searchsorted(points, at, side="right") - 1, 0, len(points) - 2)
    run = (at - points[left]).reshape(at.shape + (1,) * (values.ndim - 1))
    width = (points[left + 1] - points[left]).reshape(run.shape)
    slope = (values[left + 1] - values[left]) / width
    rise = slope * run
    return np.asarray(rise + values[left])
