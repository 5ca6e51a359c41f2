"""How far a decoded image is from the original, and how sure a mean over images is.

SSIM stands where photographs would have MS-SSIM: that one halves the image four times under a
window of 11 pixels and so needs 176 pixels each way; 32 × 32 hold a single scale of it.
"""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.adapters import optional

Float64 = NDArray[np.float64]
Pixels = NDArray[np.uint8]

PEAK = 255.0
BOOTSTRAP_RESAMPLES = 1000
CONFIDENCE = 0.95
SSIM_SIGMA = 1.5
SMALLEST_SSIM_SIDE = 11
"""Side of SSIM's window: a Gaussian of σ = 1.5, cut at 3.5 σ."""


def mean_squared_error(decoded: Pixels, pixels: Pixels) -> float:
    """In levels squared, over all dimensions of uint8 arrays of one shape."""
    return float(np.mean((decoded.astype(np.float64) - pixels) ** 2))


def psnr_db(mse: float) -> float | None:
    """10 log₁₀(255²/mse) in dB; None for no error at all."""
    return 10.0 * math.log10(PEAK**2 / mse) if mse > 0.0 else None


def ssim_available() -> bool:
    """Whether scikit-image can be loaded."""
    return optional.installed("skimage.metrics")


def ssim(decoded: Pixels, pixels: Pixels) -> float | None:
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004), mean over the channels.

    uint8 [H, W, C]. None where scikit-image is not installed or the image is smaller than the
    window.
    """
    if min(pixels.shape[:2]) < SMALLEST_SSIM_SIDE or not ssim_available():
        return None
    structural_similarity: Any = import_module("skimage.metrics").structural_similarity
    return float(
        structural_similarity(
            decoded,
            pixels,
            channel_axis=2,
            # The paper's window and moments; the library's own defaults are others.
            gaussian_weights=True,
            sigma=SSIM_SIGMA,
            use_sample_covariance=False,
            data_range=PEAK,
        )
    )


def mean_ssim(values: Sequence[float | None]) -> float | None:
    """The mean; None if any is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def bootstrap_mean(values: Float64, seed: int = 0) -> tuple[Float64, Float64]:
    """Ends of the 95 % interval of the mean over images, by resampling images.

    Args:
        values: float64 [images, …]; the interval has the other axes.
    """
    return _bootstrap(values, lambda means: means, seed)


def bootstrap_rmse(mse: Float64, seed: int = 0) -> tuple[Float64, Float64]:
    """Ends of the 95 % interval of √(mean over images); arguments as of `bootstrap_mean`."""
    return _bootstrap(mse, np.sqrt, seed)


def quality(mse: Float64, similarities: Sequence[float | None]) -> dict[str, Any]:
    """RMSE with its interval, PSNR and mean SSIM over images, ready for JSON.

    RMSE is the root of the mean over the whole set, as in DDPM, and the PSNR is that RMSE's: not
    the mean of the images' PSNRs, which an exact image would make infinite.

    Args:
        mse: float64 [images], levels squared.
    """
    mean = float(mse.mean())
    low, high = bootstrap_rmse(mse)
    return {
        "rmse": math.sqrt(mean),
        "rmse_low": float(low),
        "rmse_high": float(high),
        "psnr_db": psnr_db(mean),
        "ssim": mean_ssim(similarities),
    }


def _bootstrap(
    values: Float64, statistic: Callable[[Float64], Float64], seed: int
) -> tuple[Float64, Float64]:
    generator = np.random.Generator(np.random.Philox(seed))
    # Counts instead of copies: a resample is a weighting of the images.
    weights = generator.multinomial(
        len(values), np.full(len(values), 1.0 / len(values)), size=BOOTSTRAP_RESAMPLES
    )
    resampled = statistic(weights @ values / len(values))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    return low, high
