"""JPEG with Huffman tables fitted to each image."""

from dataclasses import dataclass

from benchmarks.adapters import pillow_format
from benchmarks.adapters.base import Pixels


@dataclass(frozen=True)
class Jpeg:
    """JPEG at a quality of 1…100; ``subsampling`` of chroma as in ``4:2:0``."""

    quality: int
    subsampling: str = "4:2:0"
    family: str = "JPEG"
    lossless: bool = False

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"JPEG {self.subsampling}, quality {self.quality}"

    @property
    def library(self) -> str:
        """Pillow and the libjpeg-turbo it was built with."""
        return pillow_format.library("libjpeg-turbo", "libjpeg_turbo")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(
            pixels, "JPEG", quality=self.quality, subsampling=self.subsampling, optimize=True
        )

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "JPEG")
