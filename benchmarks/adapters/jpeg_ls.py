"""JPEG-LS through imagecodecs' CharLS."""

from dataclasses import dataclass

from benchmarks.adapters import optional
from benchmarks.adapters.base import Pixels


@dataclass(frozen=True)
class JpegLs:
    """Lossless JPEG-LS; its standard has no transform between the colours."""

    family: str = "JPEG-LS"
    name: str = "JPEG-LS"
    lossless: bool = True

    @property
    def library(self) -> str:
        """imagecodecs and its CharLS."""
        return optional.imagecodecs_library("jpegls_version")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return bytes(optional.imagecodecs().jpegls_encode(pixels))

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        pixels: Pixels = optional.imagecodecs().jpegls_decode(data)
        return pixels
