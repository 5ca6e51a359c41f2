import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.diffusion.likelihood import fitted_scale, level_nats, level_probabilities

LEVELS = np.arange(256)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(mean=st.floats(-1e4, 1e4), scale=st.floats(1e-3, 1e4))
def test_probabilities_sum_to_one(mean: float, scale: float) -> None:
    probabilities = level_probabilities(LEVELS, np.float64(mean), scale)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.all(probabilities > 0)


def test_outer_bins_reach_to_infinity() -> None:
    assert level_probabilities(np.array(0), np.float64(-500.0), 3.0) == pytest.approx(1.0)
    assert level_probabilities(np.array(255), np.float64(800.0), 3.0) == pytest.approx(1.0)


def test_mirror_images_are_equally_probable() -> None:
    mean = np.float64(100.3)
    np.testing.assert_allclose(
        level_probabilities(LEVELS, mean, 2.7),
        level_probabilities(LEVELS[::-1], 255 - mean, 2.7),
        rtol=1e-9,
    )


def test_narrow_tails_keep_their_digits() -> None:
    # Ten deviations away the bin's probability is near the density, 7.69e-23 at its centre.
    probability = level_probabilities(np.array(200), np.float64(100.0), 10.0)
    density = np.exp(-50) / np.sqrt(2 * np.pi) / 10
    assert float(probability) == pytest.approx(density, rel=0.05)
    assert np.all(np.isfinite(level_nats(LEVELS, np.float64(0.0), 1e-3)))


def test_nats_of_a_wide_gaussian_are_its_entropy() -> None:
    random = np.random.default_rng(0)
    levels = np.rint(128 + 6 * random.standard_normal(20_000)).astype(np.int64)
    entropy = 0.5 * np.log(2 * np.pi * np.e * 36)
    nats = level_nats(levels, np.full(levels.shape, 128.0), 6.0)
    assert abs(nats.mean() - entropy) < 4 * nats.std() / np.sqrt(len(nats))


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scales_that_are_none(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        level_probabilities(LEVELS, np.float64(0.0), scale)


def test_fitted_scale_is_near_the_best() -> None:
    random = np.random.default_rng(1)
    mean = random.uniform(20, 235, 5000)
    for scale in (0.7, 2.0, 8.0):
        levels = np.rint(mean + scale * random.standard_normal(5000)).astype(np.int64)
        fitted = fitted_scale(levels, mean)
        assert fitted == pytest.approx(scale, rel=0.05)
        best = min(level_nats(levels, mean, s).mean() for s in scale * np.linspace(0.8, 1.2, 9))
        assert level_nats(levels, mean, fitted).mean() < best + 0.001
    assert fitted_scale(levels, levels.astype(np.float64)) == pytest.approx(0.05)
