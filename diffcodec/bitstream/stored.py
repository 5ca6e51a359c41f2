"""The fallback that bounds the worst case: pixels, deflated (docs/format.md, Stored pixels)."""

import zlib

import numpy as np
from numpy.typing import NDArray

from diffcodec.bitstream.container import Segment
from diffcodec.errors import BitstreamError

_RAW_DEFLATE = -15  # negative: no zlib header and no check, which the container has already
_LEVEL = 9


def pack_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Raw deflate (RFC 1951) of uint8 [H, W, C] pixels, row by row, channels interleaved."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return compressor.compress(pixels.tobytes()) + compressor.flush()


def unpack_pixels(payload: Segment, count: int, name: str) -> NDArray[np.uint8]:
    """The ``count`` values, uint8 [count], or of a truncated payload the first of them.

    Never allocates more than ``count`` values. Raises :class:`BitstreamError` where the payload is
    no deflate stream, or a complete one does not hold ``count`` values.

    >>> pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> payload = Segment(pack_pixels(pixels), complete=True)
    >>> bool((unpack_pixels(payload, 12, "example.dfc") == pixels.ravel()).all())
    True
    """
    decompressor = zlib.decompressobj(_RAW_DEFLATE)
    try:
        values = decompressor.decompress(payload.data, count)
        # The end mark may lie behind the last value: one more byte of room tells it from excess.
        excess = decompressor.decompress(decompressor.unconsumed_tail, 1)
    except zlib.error as error:
        raise BitstreamError(f"{name}: expected deflated pixels, found {error}") from None
    if excess or decompressor.unused_data:
        raise BitstreamError(f"{name}: expected {count} stored values, found more")
    if payload.complete and len(values) < count:
        raise BitstreamError(f"{name}: expected {count} stored values, found {len(values)}")
    return np.frombuffer(values, dtype=np.uint8)
