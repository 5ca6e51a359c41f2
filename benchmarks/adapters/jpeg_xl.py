"""JPEG XL through pillow-jxl-plugin, lossy and lossless."""

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from benchmarks.adapters import optional, pillow_format
from benchmarks.adapters.base import Pixels


def available() -> bool:
    """Whether the plugin can be loaded."""
    return optional.installed("pillow_jxl")


@dataclass(frozen=True)
class JpegXl:
    """Lossy JPEG XL at a quality of 1…99, where the plugin is installed."""

    quality: int
    effort: int = 7
    family: str = "JPEG XL"
    lossless: bool = False

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"JPEG XL, effort {self.effort}, quality {self.quality}"

    @property
    def library(self) -> str:
        """The plugin, which brings its own libjxl."""
        return _library()

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        _register()
        return pillow_format.pack(pixels, "JXL", quality=self.quality, effort=self.effort)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        _register()
        return pillow_format.unpack(data, "JXL")


@dataclass(frozen=True)
class JpegXlLossless:
    """Lossless JPEG XL, where the plugin is installed."""

    effort: int = 7
    family: str = "JPEG XL"
    lossless: bool = True

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"JPEG XL lossless, effort {self.effort}"

    @property
    def library(self) -> str:
        """The plugin, which brings its own libjxl."""
        return _library()

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        _register()
        return pillow_format.pack(pixels, "JXL", lossless=True, effort=self.effort)

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        _register()
        return pillow_format.unpack(data, "JXL")


def _library() -> str:
    return f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"


@cache
def _register() -> None:
    """Loading the plugin registers the format with Pillow, once a process."""
    importlib.import_module("pillow_jxl")
