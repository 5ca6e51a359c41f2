"""Bjøntegaard's delta rate (VCEG-M33, 2001), by the package bjontegaard."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.adapters import optional

METHOD = "pchip"
"""Monotone cubic pieces (VCEG-AI11): curves with more than four points do not overshoot."""
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class BdRate:
    """What a codec's rates are against an anchor's at equal PSNR.

    Attributes:
        percent: mean difference of rate; −50 is half the bits.
        low_db, high_db: the common range of PSNR that it is a mean over.
    """

    percent: float
    low_db: float
    high_db: float


def available() -> bool:
    """Whether the package can be loaded."""
    return optional.installed("bjontegaard")


def bd_rate(anchor: Curve, tested: Curve) -> BdRate | None:
    """The mean of log-rate differences over the PSNR range that both curves cover.

    Args:
        anchor, tested: points (bits/dim, PSNR in dB), in any order; of those that another point
            beats in both, none counts.

    Returns:
        None where the curves have fewer than two points each or no range in common.
    """
    anchor, tested = front(anchor), front(tested)
    if min(len(anchor), len(tested)) < 2:
        return None
    low = max(anchor[0][1], tested[0][1])
    high = min(anchor[-1][1], tested[-1][1])
    if low >= high:
        return None
    import bjontegaard

    percent = bjontegaard.bd_rate(
        *_columns(anchor),
        *_columns(tested),
        method=METHOD,
        require_matching_points=False,
        # The range is stated beside the figure instead of warned about.
        min_overlap=0.0,
    )
    return BdRate(float(percent), low, high)


def front(points: Curve) -> list[tuple[float, float]]:
    """Points that no other beats in rate and PSNR, by rising rate and so by rising PSNR."""
    kept: list[tuple[float, float]] = []
    for rate, psnr in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or psnr > kept[-1][1]:
            kept.append((rate, psnr))
    return kept


def _columns(points: Curve) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in points], [psnr for _, psnr in points]
