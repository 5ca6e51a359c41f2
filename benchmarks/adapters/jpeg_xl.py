"""Lossless JPEG XL through pillow-jxl-plugin, which only the benchmarks depend on."""

import importlib
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.adapters.base import Pixels
from benchmarks.adapters.pillow_file import pack, unpack


def available() -> bool:
    """Whether the plugin can be loaded; loading it registers the format with Pillow."""
    try:
        importlib.import_module("pillow_jxl")
    except ImportError:
        return False
    return True


@dataclass(frozen=True)
class JpegXlLossless:
    """Lossless JPEG XL; usable once :func:`available` has returned true."""

    effort: int = 7
    lossless: bool = True

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"JPEG XL lossless, effort {self.effort}"

    @property
    def library(self) -> str:
        """The plugin, which brings its own libjxl."""
        return f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pack(pixels, "JXL", lossless=True, effort=self.effort)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return unpack(data, "JXL")
