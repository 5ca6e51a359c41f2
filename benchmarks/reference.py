"""Published CIFAR-10 points to set beside our own: bits/dim and RMSE on the 0–255 scale.

Test set, x̂_0 clipped to the valid range, RMSE the root of the mean over the whole set. `coded`
points are lengths of real streams; the others are what a perfect coder would pay.
"""

from dataclasses import dataclass

_UQDM = "Yang, Will and Mandt 2025"


@dataclass(frozen=True)
class PublishedCurve:
    """A method's points as its source prints them.

    Attributes:
        name: of the method.
        citation: authors and year, for legends.
        source: where the numbers stand.
        coded: whether they are sizes of real streams.
        points: (bits/dim, RMSE), by rising rate.
    """

    name: str
    citation: str
    source: str
    coded: bool
    points: tuple[tuple[float, float], ...]


PUBLISHED_CURVES = (
    PublishedCurve(
        "JPEG",
        _UQDM,
        "arXiv:2412.10935, published CIFAR-10 data",
        coded=True,
        points=((0.95, 17.4), (1.50, 8.2)),
    ),
    PublishedCurve(
        "BPG",
        _UQDM,
        "arXiv:2412.10935, published CIFAR-10 data",
        coded=True,
        points=((0.25, 14.3), (0.58, 7.2), (1.18, 3.7)),
    ),
    PublishedCurve(
        "UQDM",
        _UQDM,
        "arXiv:2412.10935, published CIFAR-10 data, decoded to x̂",
        coded=True,
        points=((0.282, 20.5), (0.928, 7.04), (2.557, 1.65), (5.101, 0.26)),
    ),
    PublishedCurve(
        "VDM",
        _UQDM,
        "arXiv:2412.10935, published CIFAR-10 data, T = 1000",
        coded=False,
        points=((0.047, 21.4), (0.163, 10.9), (0.426, 5.03), (0.933, 2.13), (1.727, 0.84)),
    ),
    PublishedCurve(
        "DDPM",
        "Ho, Jain and Abbeel 2020",
        "arXiv:2006.11239, Table 4, L_simple, T = 1000",
        coded=False,
        points=(
            (0.00013, 60.97170),
            (0.00081, 54.18826),
            (0.00282, 46.12765),
            (0.00716, 38.03236),
            (0.01507, 30.80948),
            (0.02866, 24.43656),
            (0.05415, 18.47482),
            (0.11994, 12.02277),
            (1.77581, 0.95136),
        ),
    ),
)
