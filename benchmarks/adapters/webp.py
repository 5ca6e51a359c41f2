"""WebP, lossy and lossless."""

from dataclasses import dataclass

from benchmarks.adapters import pillow_format
from benchmarks.adapters.base import Pixels


@dataclass(frozen=True)
class Webp:
    """Lossy WebP (VP8) at a quality of 0…100, with the slowest search."""

    quality: int
    family: str = "WebP"
    lossless: bool = False

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"WebP, method 6, quality {self.quality}"

    @property
    def library(self) -> str:
        """Pillow and the libwebp it was built with."""
        return pillow_format.library("libwebp", "webp")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(pixels, "WEBP", quality=self.quality, method=6)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "WEBP")


@dataclass(frozen=True)
class WebpLossless:
    """Lossless WebP; ``quality`` is here the effort of the search, not a fidelity.

    Of all methods and qualities the default ones make the smallest files of held-out CIFAR-10
    training images: slower methods make larger ones.
    """

    method: int = 2
    quality: int = 80
    family: str = "WebP"
    lossless: bool = True

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"WebP lossless, method {self.method}, quality {self.quality}"

    @property
    def library(self) -> str:
        """Pillow and the libwebp it was built with."""
        return pillow_format.library("libwebp", "webp")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(
            pixels, "WEBP", lossless=True, method=self.method, quality=self.quality
        )

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "WEBP")
