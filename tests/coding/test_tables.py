"""Integer frequencies of the discretized Gaussian."""

import hashlib
import math

import numpy as np
import pytest

from diffcodec.coding.gaussian import normal_cdf
from diffcodec.coding.tables import (
    FREE_FREQUENCY,
    MAX_MEAN_GRID,
    MAX_SCALE_OFFSET,
    MIN_SCALE_OFFSET,
    OFFSET_STEPS,
    SCALE_COUNT,
    TOTAL_FREQUENCY,
    best_scale_offset,
    free_frequencies,
    frequencies,
    ideal_bits,
    round_means,
    scale_indices,
    shifted,
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


def test_a_scale_for_each_mean_gives_the_one_scale_tables() -> None:
    rng = np.random.default_rng(6)
    means = rng.integers(0, MAX_MEAN_GRID + 1, 400)
    scales = rng.integers(0, SCALE_COUNT, 400)
    levels = rng.integers(0, 256, 400).astype(np.uint8)
    table = frequencies(means, scales)
    bits = 0.0
    for index in np.unique(scales):
        own = scales == index
        np.testing.assert_array_equal(table[own], frequencies(means[own], int(index)))
        bits += ideal_bits(levels[own], means[own], int(index))
    assert ideal_bits(levels, means, scales) == pytest.approx(bits, rel=1e-12)
    assert frequencies(means[:0], scales[:0]).shape == (0, 256)
    with pytest.raises(ValueError, match="scale index"):
        frequencies(means[:2], np.array([3, SCALE_COUNT]))
    with pytest.raises(ValueError, match="scale index"):
        frequencies(means[:2], -1)


def test_scale_indices_are_the_nearest_scales_of_the_variance_and_the_smallest() -> None:
    sigma = np.array([sigma_levels(index) for index in range(SCALE_COUNT)])
    np.testing.assert_array_equal(scale_indices(sigma**2 - 0.05**2), np.arange(SCALE_COUNT))
    variance = np.geomspace(1e-4, 2e4, 5000)
    wanted = np.sqrt(variance + 0.05**2)
    nearest = np.abs(np.log(wanted[:, None] / sigma)).argmin(axis=1)
    np.testing.assert_array_equal(scale_indices(variance), nearest)
    assert scale_indices(np.array([[0.0, 1e-9], [1e9, np.inf]])).tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize("index", [0, 1, 100, 254])
def test_a_border_belongs_to_the_finer_scale(index: int) -> None:
    border = sigma_levels(index) * sigma_levels(index + 1)
    # Taking 0.05² off and adding it again need not give the border back: a hair to either side.
    assert scale_indices(np.array([border * (1 - 1e-9) - 0.05**2])) == index
    assert scale_indices(np.array([border * (1 + 1e-9) - 0.05**2])) == index + 1


def test_offsets_are_steps_of_the_scale_held_at_its_ends() -> None:
    indices = np.array([0, 3, 100, 255])
    assert shifted(indices, 0).tolist() == indices.tolist()
    assert shifted(indices, 2).tolist() == [8, 11, 108, 255]
    assert shifted(indices, -1).tolist() == [0, 0, 96, 251]
    ratio = sigma_levels(100 + OFFSET_STEPS) / sigma_levels(100)
    assert ratio == pytest.approx(1.127, abs=5e-4)


@pytest.mark.parametrize("offset", [MIN_SCALE_OFFSET, -3, 0, 4, MAX_SCALE_OFFSET])
def test_the_best_offset_is_the_one_that_makes_the_scales_right(offset: int) -> None:
    rng = np.random.default_rng(4)
    means = round_means(rng.uniform(60, 195, 3000))
    said = rng.integers(90, 150, 3000)
    true_sigma = np.array([sigma_levels(int(index)) for index in shifted(said, offset)])
    levels = np.rint(means / 16 + true_sigma * rng.standard_normal(3000)).astype(np.uint8)
    best = best_scale_offset(levels, means, said)
    assert best == offset
    every = {
        other: ideal_bits(levels, means, shifted(said, other))
        for other in range(MIN_SCALE_OFFSET, MAX_SCALE_OFFSET + 1)
    }
    assert every[best] == min(every.values())


def test_means_are_rounded_to_the_grid_and_refused_off_it() -> None:
    assert round_means(np.array([-1.0, 0.03125, 0.09375, 300.0])).tolist() == [0, 0, 2, 4080]
    with pytest.raises(ValueError, match="sixteenths"):
        frequencies(np.array([-1]), 0)
    with pytest.raises(ValueError, match="sixteenths"):
        frequencies(np.array([4081]), 0)
