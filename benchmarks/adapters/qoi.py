"""QOI through imagecodecs."""

from dataclasses import dataclass

from benchmarks.adapters import optional
from benchmarks.adapters.base import Pixels


@dataclass(frozen=True)
class Qoi:
    """The Quite OK Image format: a page of specification, no entropy coder."""

    family: str = "QOI"
    name: str = "QOI"
    lossless: bool = True

    @property
    def library(self) -> str:
        """imagecodecs and the commit of its QOI."""
        return optional.imagecodecs_library("qoi_version")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return bytes(optional.imagecodecs().qoi_encode(pixels))

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        pixels: Pixels = optional.imagecodecs().qoi_decode(data)
        return pixels
