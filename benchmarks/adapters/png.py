"""PNG as Pillow writes it at its smallest."""

from dataclasses import dataclass

from benchmarks.adapters import pillow_format
from benchmarks.adapters.base import Pixels


@dataclass(frozen=True)
class Png:
    """PNG with ``optimize``: the highest zlib level."""

    family: str = "PNG"
    name: str = "PNG, optimize"
    lossless: bool = True

    @property
    def library(self) -> str:
        """Pillow and the zlib it was built with."""
        return pillow_format.library("zlib", "zlib")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(pixels, "PNG", optimize=True)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "PNG")
