"""JPEG 2000 as bare codestreams, without the 85 bytes of a JP2 container."""

from dataclasses import dataclass

from benchmarks.adapters import pillow_format
from benchmarks.adapters.base import Pixels

LOSSY_RESOLUTIONS, LOSSLESS_RESOLUTIONS = 3, 2
"""Levels of the wavelet pyramid; these make the smallest files of 32 × 32 images."""


def available() -> bool:
    """Whether this Pillow knows the format."""
    return pillow_format.supported("jpg_2000")


@dataclass(frozen=True)
class Jpeg2000:
    """JPEG 2000 with the 9/7 wavelet, coded to a PSNR in dB."""

    psnr_db: int
    family: str = "JPEG 2000"
    lossless: bool = False

    @property
    def name(self) -> str:
        """The codec and its setting."""
        return f"JPEG 2000, {self.psnr_db} dB"

    @property
    def library(self) -> str:
        """Pillow and the OpenJPEG it was built with."""
        return pillow_format.library("OpenJPEG", "jpg_2000")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(
            pixels,
            "JPEG2000",
            no_jp2=True,
            mct=1,
            irreversible=True,
            quality_mode="dB",
            quality_layers=[self.psnr_db],
            num_resolutions=_resolutions(pixels, LOSSY_RESOLUTIONS),
        )

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "JPEG2000")


@dataclass(frozen=True)
class Jpeg2000Lossless:
    """JPEG 2000 with the reversible 5/3 wavelet."""

    family: str = "JPEG 2000"
    name: str = "JPEG 2000 lossless"
    lossless: bool = True

    @property
    def library(self) -> str:
        """Pillow and the OpenJPEG it was built with."""
        return pillow_format.library("OpenJPEG", "jpg_2000")

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        return pillow_format.pack(
            pixels,
            "JPEG2000",
            no_jp2=True,
            mct=1,
            irreversible=False,
            num_resolutions=_resolutions(pixels, LOSSLESS_RESOLUTIONS),
        )

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        return pillow_format.unpack(data, "JPEG2000")


def _resolutions(pixels: Pixels, wanted: int) -> int:
    """As many levels as are wanted and as the image's shorter side can be halved for."""
    height, width, _ = pixels.shape
    return min(wanted, int(min(height, width)).bit_length())
