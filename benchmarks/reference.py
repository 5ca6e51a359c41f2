"""Published CIFAR-10 figures to set beside our own, all in bits/dim.

Test set; RMSE on the 0–255 scale, x̂_0 clipped to the valid range, the root of the mean over the
whole set. ``coded`` figures are lengths of real streams; the others are what a perfect coder would
pay.
"""

from dataclasses import dataclass

_UQDM = "Yang, Will and Mandt 2025"
_DDPM = "Ho, Jain and Abbeel 2020"
_ARDM = "Hoogeboom et al. 2021"


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


@dataclass(frozen=True)
class PublishedSize:
    """A method's lossless size, or bound on it, as its source prints it."""

    name: str
    citation: str
    source: str
    coded: bool
    bpd: float


DDPM_TABLE = (
    (1000, 1.77581, 0.95136),
    (900, 0.11994, 12.02277),
    (800, 0.05415, 18.47482),
    (700, 0.02866, 24.43656),
    (600, 0.01507, 30.80948),
    (500, 0.00716, 38.03236),
    (400, 0.00282, 46.12765),
    (300, 0.00081, 54.18826),
    (200, 0.00013, 60.97170),
    (100, 0.00000, 67.60125),
)
"""DDPM's Table 4, L_simple, T = 1000: steps decoded, bits/dim, RMSE."""

PUBLISHED_CURVES = (
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
        _DDPM,
        "arXiv:2006.11239, Table 4, L_simple, T = 1000",
        coded=False,
        points=tuple((rate, rmse) for _, rate, rmse in reversed(DDPM_TABLE) if rate > 0.0),
    ),
)

DDPM_CODELENGTH = {"test": 3.75, "train": 3.72, "pixels": 1.97, "diffusion": 1.78}
"""DDPM's Table 1 and §4.3, L_simple: the bound on test and train, and its parts L_0, L_1..T."""

PUBLISHED_LOSSLESS = (
    PublishedSize("FLIF", _ARDM, "arXiv:2110.02037, Table 3", coded=True, bpd=4.19),
    PublishedSize("DDPM, bound", _DDPM, "arXiv:2006.11239, Table 1, L", coded=False, bpd=3.70),
    PublishedSize("IDF++", _ARDM, "arXiv:2110.02037, Table 3", coded=True, bpd=3.26),
    PublishedSize(
        "ARDM-Upscale 4", _ARDM, "arXiv:2110.02037, Table 3, one image", coded=True, bpd=2.71
    ),
    PublishedSize("VDM, bound", "Kingma et al. 2021", "arXiv:2107.00630", coded=False, bpd=2.65),
)
"""Of one image alone where the source tells: codes that need a chain of images are left out."""
