"""Lossless WebP."""

from dataclasses import dataclass

import PIL
from PIL import features

from benchmarks.adapters.base import Pixels
from benchmarks.adapters.pillow_file import pack, unpack


@dataclass(frozen=True)
class WebpLossless:
    """Lossless WebP; ``quality`` is here the effort of the search, not a fidelity."""

    method: int = 4
    quality: int = 80
    lossless: bool = True

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"WebP lossless, method {self.method}, quality {self.quality}"

    @property
    def library(self) -> str:
        """Pillow and the libwebp it was built with."""
        return f"Pillow {PIL.__version__}, libwebp {features.version('webp')}"

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pack(pixels, "WEBP", lossless=True, method=self.method, quality=self.quality)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return unpack(data, "WEBP")
