"""Sums that no order of summation changes: held against integers of any size."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.diffusion.cosine import (
    BANDS,
    TRANSFORM_BITS,
    cosine_transform,
    frequency_bands,
    inverse_cosine_transform,
    tile_dots,
)

Float64 = NDArray[np.float64]


def tiles(side: int = 16, seed: int = 0, count: int = 3) -> Float64:
    return np.random.default_rng(seed).normal(0.0, 0.03, (count, 3, side, side))


def integers(side: int) -> list[list[int]]:
    """The DCT-II's matrix in units of 2^−TRANSFORM_BITS, as Python's own integers."""
    rows = []
    for k in range(side):
        scale = math.sqrt((1.0 if k == 0 else 2.0) / side)
        angles = (math.pi / side * (n + 0.5) * k for n in range(side))
        rows.append([round(scale * math.cos(a) * 2**TRANSFORM_BITS) for a in angles])
    return rows


def exact_rows(matrix: list[list[int]], channels: list[list[list[Fraction]]]) -> Any:
    """``matrix`` times every row of every channel, rounded together to `TRANSFORM_BITS` bits."""
    largest = max(abs(v) for channel in channels for row in channel for v in row)
    _, exponent = math.frexp(float(largest))
    unit = Fraction(2) ** (exponent - TRANSFORM_BITS)
    scale = unit / 2**TRANSFORM_BITS
    return [
        [
            [scale * sum(m * round(v / unit) for m, v in zip(k, row, strict=True)) for k in matrix]
            for row in channel
        ]
        for channel in channels
    ]


def transposed(channels: list[list[list[Fraction]]]) -> list[list[list[Fraction]]]:
    return [[list(column) for column in zip(*channel, strict=True)] for channel in channels]


def test_it_is_the_exact_transform_of_rounded_tiles() -> None:
    side = 8
    given, matrix = tiles(side, count=1), integers(side)
    channels = [[[Fraction(v) for v in row] for row in channel] for channel in given[0].tolist()]
    columns = transposed(exact_rows(matrix, transposed(channels)))
    expected = np.array(exact_rows(matrix, columns), dtype=np.float64)
    np.testing.assert_array_equal(cosine_transform(given)[0], expected)


@pytest.mark.parametrize("side", [4, 12, 32])
def test_it_is_orthonormal(side: int) -> None:
    given = tiles(side)
    transformed = cosine_transform(given)
    np.testing.assert_allclose((transformed**2).sum(), (given**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(inverse_cosine_transform(transformed), given, rtol=0, atol=1e-7)


def test_a_cosine_is_one_coefficient() -> None:
    side, k = 32, 5
    wave = np.cos(np.pi / side * (np.arange(side) + 0.5) * k)
    transformed = cosine_transform(np.broadcast_to(wave, (1, 3, side, side)))
    expected = np.zeros((side, side))
    expected[0, k] = side / math.sqrt(2.0)
    np.testing.assert_allclose(transformed[0, 1], expected, rtol=0, atol=1e-5)


def test_largest_magnitudes_stay_exact() -> None:
    # Every product of the constant's row has the same sign: the largest sum that there is.
    full = np.full((1, 3, 32, 32), 1.0 - 2.0**-24)
    turned = cosine_transform(full[:, :, ::-1, ::-1])
    np.testing.assert_array_equal(cosine_transform(full), turned)
    assert float(tile_dots(full, full)[0, 0, 0, 0]) == pytest.approx(3 * 32 * 32, rel=1e-5)


@pytest.mark.parametrize("transform", [cosine_transform, inverse_cosine_transform])
def test_tiles_have_no_say_on_each_other_and_layouts_none_at_all(transform: object) -> None:
    assert callable(transform)
    given = tiles() * np.array([1.0, 1e-9, 1e6])[:, None, None, None]
    together = transform(given)
    for tile in range(len(given)):
        np.testing.assert_array_equal(transform(given[tile : tile + 1])[0], together[tile])
    np.testing.assert_array_equal(transform(np.asfortranarray(given)), together)
    np.testing.assert_array_equal(transform(given[::-1]), together[::-1])


def test_dots_are_sums_of_rounded_products() -> None:
    a, b = tiles(seed=1), tiles(seed=2) * 1e5
    dots = tile_dots(a, b)
    assert dots.shape == (3, 1, 1, 1)
    np.testing.assert_allclose(dots[:, 0, 0, 0], (a * b).sum(axis=(1, 2, 3)), rtol=1e-4)
    # The order of the coordinates changes nothing.
    np.testing.assert_array_equal(tile_dots(a[:, :, ::-1], b[:, :, ::-1]), dots)
    np.testing.assert_array_equal(tile_dots(np.zeros_like(a), b), np.zeros((3, 1, 1, 1)))


def test_bands_grow_with_the_frequency() -> None:
    bands = frequency_bands(32)
    assert set(np.unique(bands)) == set(range(BANDS))
    assert (bands == 0).sum() == 1
    assert bands[0, 0] == 0
    assert (np.diff(bands, axis=0) >= 0).all()
    np.testing.assert_array_equal(bands, bands.T)
    # A frequency's band is its own whatever the image's size.
    np.testing.assert_array_equal(frequency_bands(8), bands[:8, :8])
