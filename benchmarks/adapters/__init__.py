"""One file per codec, one interface: see :class:`benchmarks.adapters.base.Adapter`."""

from benchmarks.adapters import jpeg_xl
from benchmarks.adapters.base import Adapter
from benchmarks.adapters.jpeg_xl import JpegXlLossless
from benchmarks.adapters.png import Png
from benchmarks.adapters.webp_lossless import WebpLossless

__all__ = ["Adapter", "JpegXlLossless", "Png", "WebpLossless", "lossless_peers"]


def lossless_peers() -> tuple[Adapter, ...]:
    """The other lossless codecs that can run here, in the order in which tables list them."""
    peers: tuple[Adapter, ...] = (Png(), WebpLossless())
    return (*peers, JpegXlLossless()) if jpeg_xl.available() else peers
