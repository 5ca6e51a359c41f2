"""Integer frequencies of the discretized Gaussian."""

import hashlib
import math

import numpy as np
import pytest

from diffcodec.coding.gaussian import normal_cdf
from diffcodec.coding.tables import (
    FREE_FREQUENCY,
    MAX_MEAN_GRID,
    SCALE_COUNT,
    TOTAL_FREQUENCY,
    best_scale_index,
    free_frequencies,
    frequencies,
    ideal_bits,
    round_means,
    sigma_levels,
)

ALL_MEANS = np.arange(MAX_MEAN_GRID + 1, dtype=np.int32)


def test_every_level_can_be_coded_and_every_row_sums_exactly() -> None:
    for scale_index in range(SCALE_COUNT):
        # All means at every 16th scale, and every scale at each fraction of a level.
        means = ALL_MEANS if scale_index % 16 in (0, 15) else ALL_MEANS[scale_index % 7 :: 7]
        table = frequencies(means, scale_index)
        assert table.min() >= 1
        assert (table.sum(axis=1, dtype=np.int64) == TOTAL_FREQUENCY).all()


@pytest.mark.parametrize("scale_index", [0, 17, 100, 180, 255])
@pytest.mark.parametrize("mean", [0, 7, 8, 1605, 2040, 4079, 4080])
def test_frequencies_are_the_documented_formula(scale_index: int, mean: int) -> None:
    edges = (16 * np.arange(1, 256) - 8 - mean) / 16 / sigma_levels(scale_index)
    inner = np.rint(normal_cdf(edges) * FREE_FREQUENCY).astype(np.int64) + np.arange(1, 256)
    cumulative = np.concatenate([[0], inner, [TOTAL_FREQUENCY]])
    row = frequencies(np.array([mean]), scale_index)[0]
    np.testing.assert_array_equal(row, np.diff(cumulative))


def test_frequencies_are_the_gaussian_of_ddpm() -> None:
    sigma, mean = sigma_levels(150), 99.5
    expected = [
        0.5
        * (
            math.erf((k + 0.5 - mean) / sigma / 2**0.5)
            - math.erf((k - 0.5 - mean) / sigma / 2**0.5)
        )
        for k in range(80, 120)
    ]
    row = frequencies(round_means(np.array([mean])), 150)[0, 80:120] / TOTAL_FREQUENCY
    np.testing.assert_allclose(row, expected, atol=1e-6, rtol=2e-5)


def test_free_frequencies_are_whole_and_sum_to_what_is_free() -> None:
    rows = free_frequencies(ALL_MEANS[::13], 77)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.floor(rows))
    np.testing.assert_array_equal(rows.sum(axis=1, dtype=np.float32), np.float32(FREE_FREQUENCY))


def test_tables_are_pinned() -> None:
    digest = hashlib.sha256()
    for scale_index in range(0, SCALE_COUNT, 5):
        digest.update(frequencies(ALL_MEANS[::97], scale_index).astype("<u4").tobytes())
    assert digest.hexdigest() == "07a202e230371434f84996adbc9e50ca1dfba15343e85484908d54db96dbf1ee"


def test_scales_are_a_logarithmic_grid() -> None:
    sigma = np.array([sigma_levels(index) for index in range(SCALE_COUNT)])
    assert sigma[0] == 0.05
    assert sigma[-1] == pytest.approx(100.0, rel=1e-14)
    np.testing.assert_allclose(sigma[1:] / sigma[:-1], 2000 ** (1 / 255), rtol=1e-13)
    with pytest.raises(ValueError, match="scale index"):
        sigma_levels(256)


def test_ideal_bits_are_the_frequencies_code_length() -> None:
    rng = np.random.default_rng(3)
    means = round_means(rng.uniform(-4, 260, 2000))
    levels = np.clip(np.rint(means / 16 + rng.normal(0, 5, 2000)), 0, 255).astype(np.uint8)
    for scale_index in (0, 90, 150, 255):
        used = frequencies(means, scale_index)[np.arange(2000), levels]
        expected = -np.log2(used / TOTAL_FREQUENCY).sum()
        assert ideal_bits(levels, means, scale_index) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 2.0, 30.0])
def test_best_scale_is_the_best_of_all(sigma: float) -> None:
    rng = np.random.default_rng(4)
    means = round_means(rng.uniform(0, 255, 3000))
    levels = np.clip(np.rint(means / 16 + rng.normal(0, sigma, 3000)), 0, 255).astype(np.uint8)
    best = best_scale_index(levels, means)
    every = [ideal_bits(levels, means, index) for index in range(SCALE_COUNT)]
    assert every[best] == min(every)


def test_means_are_rounded_to_the_grid_and_refused_off_it() -> None:
    assert round_means(np.array([-1.0, 0.03125, 0.09375, 300.0])).tolist() == [0, 0, 2, 4080]
    with pytest.raises(ValueError, match="sixteenths"):
        frequencies(np.array([-1]), 0)
    with pytest.raises(ValueError, match="sixteenths"):
        frequencies(np.array([4081]), 0)
