"""HEIC through pillow-heif: HEVC's intra coding, which BPG has too, in a larger container."""

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from benchmarks.adapters import optional, pillow_format
from benchmarks.adapters.base import Pixels


def available() -> bool:
    """Whether the plugin can be loaded."""
    return optional.installed("pillow_heif")


@dataclass(frozen=True)
class Heic:
    """HEIC at a quality of 0…100, where the plugin is installed; chroma as in ``4:2:0``."""

    quality: int
    subsampling: str = "4:2:0"
    family: str = "HEIC"
    lossless: bool = False

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"HEIC {self.subsampling}, quality {self.quality}"

    @property
    def library(self) -> str:
        """The plugin, which brings its own libheif and x265."""
        return f"pillow-heif {version('pillow-heif')}"

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        _register()
        return pillow_format.pack(
            pixels, "HEIF", quality=self.quality, chroma=self.subsampling.replace(":", "")
        )

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        _register()
        return pillow_format.unpack(data, "HEIF")


@cache
def _register() -> None:
    """Register the format with Pillow, once a process."""
    importlib.import_module("pillow_heif").register_heif_opener()
