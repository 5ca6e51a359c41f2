"""What other codecs make of the same images, one file per image.

Every size is told twice: whole files, and files less the size of the codec's smallest file
(`adapters.overhead_bytes`), a constant that costs a photograph nothing and a 32 × 32 image much.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.adapters import Adapter, family_overheads, lossless_peers, lossy_peers
from benchmarks.adapters.base import Pixels
from benchmarks.bd_rate import BdRate, bd_rate
from benchmarks.bd_rate import available as bd_rate_available
from benchmarks.metrics import bootstrap_mean, mean_squared_error, quality, ssim
from benchmarks.real_files import standard_error
from diffcodec.errors import DiffcodecError
from diffcodec.units import bits_per_dimension

PeerFiles = dict[str, tuple[int, float, float | None]]
"""Of one image: a setting's name → bytes of its file, mean squared error, SSIM."""


def measure_peers(pixels: Pixels) -> PeerFiles:
    """Encode and decode one image, uint8 [H, W, 3], with every codec and setting that runs here.

    Raises:
        DiffcodecError: a lossless codec does not give the image back.
    """
    files: PeerFiles = {}
    for adapter in (*lossless_peers(), *lossy_peers()):
        data = adapter.encode(pixels)
        decoded = adapter.decode(data)
        if not adapter.lossless:
            mse = mean_squared_error(decoded, pixels)
            files[adapter.name] = (len(data), mse, ssim(decoded, pixels))
        elif np.array_equal(decoded, pixels):
            files[adapter.name] = (len(data), 0.0, 1.0)
        else:
            raise DiffcodecError(f"{adapter.name}: an image does not come back exactly")
    return files


def summarize_peers(images: Sequence[PeerFiles], dimensions: int) -> dict[str, Any]:
    """``lossless``: one entry a codec; ``lossy``: one a family, its settings in points.

    Args:
        dimensions: H·W·C of every image.
    """
    return {
        "lossless": [
            _sizes(adapter, images, dimensions, family_overheads((adapter,))[adapter.family])
            for adapter in lossless_peers()
        ],
        "lossy": _lossy(images, dimensions),
    }


def bd_rates(
    stops: Sequence[Mapping[str, Any]], overhead: int, peers: Mapping[str, Any], dimensions: int
) -> dict[str, Any] | None:
    """What our rates are against each lossy family's at equal PSNR; None without the package.

    Both sides fix a quality for all images and let the sizes vary: their settings, our stops. Both
    lose their constant overhead in ``net``, and neither in ``whole``.

    Args:
        stops: of `real_files.summarize_files`.
        overhead: bytes of our smallest file.
        peers: of `summarize_peers`.
    """
    if not bd_rate_available():
        return None
    ours = _points(stops, "rate_bpd")
    ours_net = [(rate - 8.0 * overhead / dimensions, psnr) for rate, psnr in ours]
    rates: dict[str, Any] = {}
    for family in peers["lossy"]:
        whole = _points(family["points"], "mean_bpd")
        net = _points(family["points"], "net_bpd")
        rates[family["family"]] = {
            "whole": _record(bd_rate(whole, ours)),
            # A file can be as small as the overhead only in a degenerate setting.
            "net": _record(bd_rate(_positive(net), _positive(ours_net))),
        }
    return rates


def _lossy(images: Sequence[PeerFiles], dimensions: int) -> list[dict[str, Any]]:
    adapters = lossy_peers()
    overheads = family_overheads(adapters)
    families: dict[str, dict[str, Any]] = {}
    for adapter in adapters:
        overhead = overheads[adapter.family]
        family = families.setdefault(
            adapter.family,
            {
                "family": adapter.family,
                "library": adapter.library,
                "overhead_bytes": overhead,
                "points": [],
            },
        )
        files = [image[adapter.name] for image in images]
        family["points"].append(
            {
                **_sizes(adapter, images, dimensions, overhead),
                **quality(np.array([mse for _, mse, _ in files]), [value for *_, value in files]),
            }
        )
    return list(families.values())


def _sizes(
    adapter: Adapter, images: Sequence[PeerFiles], dimensions: int, overhead: int
) -> dict[str, Any]:
    sizes = np.array([image[adapter.name][0] for image in images], dtype=np.float64)
    sizes_bpd = bits_per_dimension(8.0 * sizes, dimensions)
    low, high = bootstrap_mean(sizes_bpd)
    return {
        "name": adapter.name,
        "library": adapter.library,
        "images": len(images),
        "mean_bpd": float(sizes_bpd.mean()),
        "low_bpd": float(low),
        "high_bpd": float(high),
        "standard_error_bpd": standard_error(sizes_bpd),
        "overhead_bytes": overhead,
        "net_bpd": float(sizes_bpd.mean() - bits_per_dimension(8.0 * overhead, dimensions)),
    }


def _record(rate: BdRate | None) -> dict[str, float] | None:
    if rate is None:
        return None
    return {"percent": rate.percent, "low_db": rate.low_db, "high_db": rate.high_db}


def _points(points: Sequence[Mapping[str, Any]], rate: str) -> list[tuple[float, float]]:
    """Rate and PSNR; a setting without any error has no PSNR to compare at."""
    return [(p[rate], p["psnr_db"]) for p in points if p["psnr_db"] is not None]


def _positive(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(rate, psnr) for rate, psnr in points if rate > 0.0]
