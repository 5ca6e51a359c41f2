import math
import sys

import numpy as np
import pytest

from benchmarks.metrics import (
    bootstrap_mean,
    bootstrap_rmse,
    mean_squared_error,
    mean_ssim,
    psnr_db,
    quality,
    ssim,
    ssim_available,
)


def test_errors_of_known_size() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    # Unsigned levels must not wrap.
    assert mean_squared_error(black, grey) == mean_squared_error(grey, black) == 51.0**2
    assert psnr_db(51.0**2) == pytest.approx(20 * math.log10(5))
    assert psnr_db(0.0) is None


def test_ssim_is_one_for_equal_images_and_falls_with_noise() -> None:
    if not ssim_available():
        pytest.skip("scikit-image is not installed")
    generator = np.random.Generator(np.random.Philox(2))
    pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert ssim(pixels, pixels) == pytest.approx(1.0)
    shifted = np.clip(pixels.astype(int) + 20, 0, 255).astype(np.uint8)
    negative = 255 - pixels
    assert 0.9 < (ssim(shifted, pixels) or 0.0) < 1.0
    assert (ssim(negative, pixels) or 0.0) < 0.0


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    if not ssim_available():
        pytest.skip("scikit-image is not installed")
    a, b = 100.0, 120.0
    constant = (0.01 * 255) ** 2
    expected = (2 * a * b + constant) / (a * a + b * b + constant)
    flat = [np.full((16, 16, 3), level, np.uint8) for level in (a, b)]
    assert ssim(*flat) == pytest.approx(expected)


def test_ssim_is_missing_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = np.zeros((8, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    assert ssim(small, small) is None
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    assert ssim(large, large) is None
    assert mean_ssim([0.5, None]) is None
    assert mean_ssim([0.5, 1.0]) == 0.75


def test_intervals_cover_the_mean_and_are_reproducible() -> None:
    mse = np.random.Generator(np.random.Philox(1)).exponential(25.0, size=(200, 1))
    low, high = bootstrap_rmse(mse)
    assert low[0] < math.sqrt(mse.mean()) < high[0]
    # The mean of 200 exponential values has a relative deviation of 1/√200, its root half of it.
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * 5.0 / 2 / math.sqrt(200), rel=0.2)
    np.testing.assert_array_equal(bootstrap_rmse(mse)[0], low)
    low, high = bootstrap_mean(mse)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * 25.0 / math.sqrt(200), rel=0.2)


def test_quality_pools_squared_errors() -> None:
    pooled = quality(np.array([0.0, 50.0]), [1.0, 0.5])
    assert pooled["rmse"] == pytest.approx(5.0)
    assert pooled["psnr_db"] == pytest.approx(20 * math.log10(51))
    assert pooled["ssim"] == 0.75
    assert pooled["rmse_low"] <= 5.0 <= pooled["rmse_high"]
