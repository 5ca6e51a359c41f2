"""AVIF, lossy through Pillow and lossless through imagecodecs, which writes it without YCbCr."""

from dataclasses import dataclass

from benchmarks.adapters import optional, pillow_format
from benchmarks.adapters.base import Pixels


def available() -> bool:
    """Whether this Pillow knows the format."""
    return pillow_format.supported("avif")


@dataclass(frozen=True)
class Avif:
    """AVIF at a quality of 0…100; ``subsampling`` of chroma as in ``4:2:0``."""

    quality: int
    subsampling: str = "4:2:0"
    speed: int = 6
    family: str = "AVIF"
    lossless: bool = False

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"AVIF {self.subsampling}, speed {self.speed}, quality {self.quality}"

    @property
    def library(self) -> str:
        """Pillow and the libavif it was built with."""
        return pillow_format.library("libavif", "avif")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(
            pixels,
            "AVIF",
            quality=self.quality,
            subsampling=self.subsampling,
            speed=self.speed,
            # More threads than one would only make the timings differ.
            max_threads=1,
        )

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "AVIF")


@dataclass(frozen=True)
class AvifLossless:
    """Lossless AVIF; usable where imagecodecs can be loaded."""

    family: str = "AVIF"
    name: str = "AVIF lossless"
    lossless: bool = True

    @property
    def library(self) -> str:
        """imagecodecs and its libavif."""
        return optional.imagecodecs_library("avif_version")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return bytes(optional.imagecodecs().avif_encode(pixels, level=None, numthreads=1))

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        pixels: Pixels = optional.imagecodecs().avif_decode(data, numthreads=1)
        return pixels
