"""The cosine transform of images, and sums over them, that no order of summation changes.

Sums of floating-point numbers depend on their order, and with it on processors, libraries and
threads. Here every operand is first rounded to an integer of so few bits that all products and
sums are integers below 2⁵³, which float64 holds exactly: whatever order a library takes, whether or
not it fuses multiplication and addition, the result is the same.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

TRANSFORM_BITS = 24
BAND_LIMITS = (1, 2, 4, 6, 10, 16, 26, 41, 66, 105, 166, 264, 420, 666, 1057)
"""Squared distances from the constant's frequency at which the second and later bands begin."""
BANDS = len(BAND_LIMITS) + 1

_EXACT_BITS = 53


@lru_cache(maxsize=8)
def frequency_bands(side: int) -> NDArray[np.int64]:
    """The band, 0 to `BANDS` − 1, of every coefficient of ``side`` × ``side`` pixels."""
    frequency = np.arange(side)
    squared = frequency[:, None] ** 2 + frequency**2
    return np.asarray(np.searchsorted(BAND_LIMITS, squared, side="right"), dtype=np.int64)


def cosine_transform(tiles: Float64) -> Float64:
    """The orthonormal DCT-II of both axes of each channel, float64 [G, C, S, S].

    A tile is rounded to `TRANSFORM_BITS` bits of its largest magnitude before each axis.
    """
    matrix = _matrix(tiles.shape[-1])
    return _along_both(tiles, matrix)


def inverse_cosine_transform(coefficients: Float64) -> Float64:
    """The transpose of `cosine_transform`, but for its rounding its inverse."""
    matrix = _matrix(coefficients.shape[-1])
    return _along_both(coefficients, np.ascontiguousarray(matrix.T))


def tile_dots(a: Float64, b: Float64) -> Float64:
    """Σ a·b over each tile, float64 [G, 1, 1, 1].

    Tiles are rounded to as many bits of their largest magnitude as exact sums have room for: 20
    where a tile has 3 · 32 · 32 coordinates.
    """
    bits = (_EXACT_BITS - math.ceil(math.log2(math.prod(a.shape[1:])))) // 2
    first, first_exponent = _as_integers(a, bits)
    second, second_exponent = _as_integers(b, bits)
    total = (first * second).sum(axis=(1, 2, 3), keepdims=True)
    return np.asarray(np.ldexp(total, first_exponent + second_exponent))


def _along_both(tiles: Float64, matrix: Float64) -> Float64:
    """``matrix`` times every column and then every row; its entries are integers."""
    columns, exponent = _as_integers(tiles, TRANSFORM_BITS)
    rows, further = _as_integers(matrix @ columns, TRANSFORM_BITS)
    return np.asarray(np.ldexp(rows @ matrix.T, exponent + further - 2 * TRANSFORM_BITS))


def _as_integers(tiles: Float64, bits: int) -> tuple[Float64, NDArray[np.int32]]:
    """Integers of at most ``bits`` bits and the exponent of 2 of each tile's unit [G, 1, 1, 1]."""
    largest = np.abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    exponent = np.frexp(largest)[1] - bits
    return np.rint(np.ldexp(tiles, -exponent)), exponent


@lru_cache(maxsize=8)
def _matrix(side: int) -> Float64:
    """The DCT-II's matrix times 2^`TRANSFORM_BITS`, rounded: no platform's cosine has a say.

    A row's magnitudes sum to at most √S · 2²⁴, so that products with integers of 24 bits stay
    exact up to sides of 1024.
    """
    index = np.arange(side)
    matrix = np.cos(np.pi / side * (index + 0.5) * index[:, None]) * math.sqrt(2.0 / side)
    matrix[0] = math.sqrt(1.0 / side)
    return np.asarray(np.rint(np.ldexp(matrix, TRANSFORM_BITS)))
