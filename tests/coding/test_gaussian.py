"""The normal distribution from basic operations."""

import hashlib
import math

import numpy as np
import pytest

from diffcodec.coding.gaussian import (
    exponential,
    normal_cdf,
    normal_quantiles,
    unit_variance_steps,
)


def _digest(steps: np.ndarray) -> str:
    return hashlib.sha256(steps.astype("<i4").tobytes()).hexdigest()


def test_exponential_agrees_with_libm() -> None:
    x = np.linspace(-690, 690, 5001)
    expected = np.array([math.exp(value) for value in x])
    np.testing.assert_allclose(exponential(x), expected, rtol=2e-14)
    assert exponential(0.0) == 1.0


def test_cdf_agrees_with_erf() -> None:
    x = np.linspace(-8.5, 8.5, 4001)
    expected = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    np.testing.assert_allclose(normal_cdf(x), expected, rtol=1e-12, atol=1e-16)


def test_cdf_is_monotone_symmetric_and_takes_infinities() -> None:
    x = np.linspace(0, 10, 20001)
    assert (np.diff(normal_cdf(np.concatenate([-x[::-1], x]))) >= 0).all()
    np.testing.assert_array_equal(normal_cdf(x), 1.0 - normal_cdf(-x))
    assert normal_cdf(np.inf) == 1.0
    assert 0.0 < normal_cdf(-np.inf) < 1e-18
    assert normal_cdf(0.0) == 0.5


@pytest.mark.parametrize("levels", [1, 2, 3, 255, 4096])
def test_quantiles_invert_the_cdf(levels: int) -> None:
    quantiles = normal_quantiles(levels)
    np.testing.assert_allclose(
        normal_cdf(quantiles), (np.arange(levels) + 0.5) / levels, atol=1e-15, rtol=0
    )
    np.testing.assert_array_equal(quantiles, -quantiles[::-1])
    assert (np.diff(quantiles) > 0).all()


def test_quantiles_refuse_an_empty_table() -> None:
    with pytest.raises(ValueError, match="levels"):
        normal_quantiles(0)


def test_tables_are_pinned() -> None:
    assert _digest(np.rint(normal_quantiles(4096) * (1 << 20))) == (
        "37a61f0c5b67f624301c137a3bd11e58481a69aa969d012c355dacc13c6f9999"
    )
    assert _digest(unit_variance_steps()) == (
        "aa972818987b8247e005f4537b635a99349e0c5b0a00fab3367d75fbaa95f64a"
    )


def test_no_table_entry_lies_near_a_rounding_edge() -> None:
    steps = normal_quantiles(4096) * (1 << 20)
    assert np.abs(np.abs(steps - np.floor(steps)) - 0.5).min() > 1e-6


def test_unit_variance_steps_have_unit_variance() -> None:
    steps = unit_variance_steps().astype(np.float64) / (1 << 20)
    assert steps.sum() == 0.0
    assert 2 * np.mean(steps * steps) == pytest.approx(1.0, abs=1e-7)
