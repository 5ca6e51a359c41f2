"""Bjøntegaard's delta rate on curves whose answer is known."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.bd_rate import available, bd_rate, front

pytestmark = pytest.mark.skipif(not available(), reason="bjontegaard is not installed")

RATES = [0.25, 0.5, 1.0, 2.0, 4.0]


def line(scale: float) -> list[tuple[float, float]]:
    """PSNR of 30 dB at ``scale`` bits/dim and 6 dB more for each doubling."""
    return [(scale * rate, 30.0 + 6.0 * math.log2(rate)) for rate in RATES]


@pytest.mark.parametrize(("scale", "percent"), [(0.5, -50.0), (1.0, 0.0), (1.3, 30.0)])
def test_a_constant_factor_of_rate_is_the_answer(scale: float, percent: float) -> None:
    found = bd_rate(line(1.0), line(scale))
    assert found is not None
    assert found.percent == pytest.approx(percent, abs=1e-6)
    assert (found.low_db, found.high_db) == (18.0, 42.0)


def test_the_mean_is_over_log_rates_of_the_common_range() -> None:
    # The tested curve needs the same rate at 30 dB and half of it at 42 dB, on a straight line in
    # log-rate: over 30…42 dB the mean factor is √½.
    tested = [(2.0 ** ((psnr - 30.0) / 12.0), psnr) for psnr in (30.0, 33.0, 36.0, 39.0, 42.0)]
    found = bd_rate(line(1.0), tested)
    assert found is not None
    assert (found.low_db, found.high_db) == (30.0, 42.0)
    assert found.percent == pytest.approx(100.0 * (math.sqrt(0.5) - 1.0), abs=1e-6)


def test_points_of_a_real_codec_against_a_numerical_integral() -> None:
    anchor = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
    tested = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]
    found = bd_rate(anchor, tested)
    assert found is not None
    psnr = np.linspace(found.low_db, found.high_db, 20001)

    def log_rate(points: list[tuple[float, float]]) -> NDArray[np.float64]:
        rates, levels = zip(*sorted(points), strict=True)
        return np.interp(psnr, levels, np.log(rates))

    # Straight pieces for cubic ones: near enough to catch a wrong axis, range or sign.
    mean = float(np.mean(log_rate(tested) - log_rate(anchor)))
    assert found.percent == pytest.approx(100.0 * (math.exp(mean) - 1.0), abs=0.5)
    assert found.percent < -3.0


def test_curves_without_a_common_range_have_no_answer() -> None:
    low = [(rate, psnr - 50.0) for rate, psnr in line(1.0)]
    assert bd_rate(line(1.0), low) is None
    assert bd_rate(line(1.0), line(1.0)[:1]) is None


def test_beaten_points_do_not_count() -> None:
    spoiled = [*line(1.0), (1.5, 20.0), (3.0, 30.0)]
    assert front(spoiled) == line(1.0)
    found = bd_rate(line(1.0), spoiled)
    assert found is not None
    assert found.percent == pytest.approx(0.0, abs=1e-9)
