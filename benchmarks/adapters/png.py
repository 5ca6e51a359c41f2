"""PNG as Pillow writes it at its smallest."""

from dataclasses import dataclass

import PIL
from PIL import features

from benchmarks.adapters.base import Pixels
from benchmarks.adapters.pillow_file import pack, unpack


@dataclass(frozen=True)
class Png:
    """PNG with ``optimize``: the highest zlib level."""

    name: str = "PNG, optimize"
    lossless: bool = True

    @property
    def library(self) -> str:
        """Pillow and the zlib it was built with."""
        return f"Pillow {PIL.__version__}, zlib {features.version('zlib')}"

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pack(pixels, "PNG", optimize=True)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return unpack(data, "PNG")
