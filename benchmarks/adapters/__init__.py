"""One file per codec, one interface: see :class:`benchmarks.adapters.base.Adapter`."""

import numpy as np

from benchmarks.adapters import avif, heic, jpeg2000, jpeg_xl, optional
from benchmarks.adapters.avif import Avif, AvifLossless
from benchmarks.adapters.base import Adapter
from benchmarks.adapters.heic import Heic
from benchmarks.adapters.jpeg import Jpeg
from benchmarks.adapters.jpeg2000 import Jpeg2000, Jpeg2000Lossless
from benchmarks.adapters.jpeg_ls import JpegLs
from benchmarks.adapters.jpeg_xl import JpegXl, JpegXlLossless
from benchmarks.adapters.png import Png
from benchmarks.adapters.qoi import Qoi
from benchmarks.adapters.webp import Webp, WebpLossless

__all__ = [
    "Adapter",
    "Avif",
    "AvifLossless",
    "Heic",
    "Jpeg",
    "Jpeg2000",
    "Jpeg2000Lossless",
    "JpegLs",
    "JpegXl",
    "JpegXlLossless",
    "Png",
    "Qoi",
    "Webp",
    "WebpLossless",
    "family_overheads",
    "lossless_peers",
    "lossy_peers",
    "overhead_bytes",
]


def lossless_peers() -> tuple[Adapter, ...]:
    """The other lossless codecs that can run here, in the order in which tables list them."""
    peers: list[Adapter] = [Png()]
    if optional.installed("imagecodecs"):
        peers += [Qoi(), JpegLs(), AvifLossless()]
    if jpeg2000.available():
        peers.append(Jpeg2000Lossless())
    peers.append(WebpLossless())
    if jpeg_xl.available():
        peers += [JpegXlLossless(7), JpegXlLossless(9)]
    return tuple(peers)


def lossy_peers() -> tuple[Adapter, ...]:
    """Lossy codecs that can run here, at settings from their coarsest to nearly lossless.

    Where chroma can be kept or halved, low qualities halve it and high ones keep it, with both in
    between: a family's curve is the front of its settings.
    """
    peers: list[Adapter] = []
    peers += [Jpeg(quality) for quality in (1, 5, 10, 20, 35, 55, 75)]
    peers += [Jpeg(quality, "4:4:4") for quality in (20, 45, 70, 85, 92, 96, 100)]
    peers += [Webp(quality) for quality in (0, 5, 15, 30, 50, 70, 85, 95, 100)]
    if jpeg2000.available():
        peers += [Jpeg2000(psnr_db) for psnr_db in (18, 20, 23, 26, 29, 32, 36, 40, 44)]
    if avif.available():
        peers += [Avif(quality) for quality in (0, 15, 30, 45)]
        peers += [Avif(quality, "4:4:4") for quality in (30, 50, 65, 80, 90, 97)]
    if heic.available():
        peers += [Heic(quality) for quality in (0, 15, 30)]
        peers += [Heic(quality, "4:4:4") for quality in (30, 50, 70, 90)]
    if jpeg_xl.available():
        peers += [JpegXl(quality) for quality in (1, 15, 35, 55, 70, 82, 90, 95, 99)]
    return tuple(peers)


def overhead_bytes(adapter: Adapter) -> int:
    """Size of the file of one flat mid-gray pixel: what a container costs before it says anything.

    A codec made for large photographs spends hundreds of bytes on it, more than a 32 × 32 image
    takes; figures therefore also show files less this constant.
    """
    return len(adapter.encode(np.full((1, 1, 3), 128, np.uint8)))


def family_overheads(adapters: tuple[Adapter, ...]) -> dict[str, int]:
    """The smallest overhead of each family's settings, in bytes."""
    overheads: dict[str, int] = {}
    for adapter in adapters:
        size = overhead_bytes(adapter)
        overheads[adapter.family] = min(size, overheads.get(adapter.family, size))
    return overheads
