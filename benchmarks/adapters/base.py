"""The one interface of every codec that the benchmarks measure."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Adapter(Protocol):
    """A codec at one setting: inverse functions between one RGB image and one whole file."""

    @property
    def family(self) -> str:
        """The codec: settings of one family make one curve."""

    @property
    def name(self) -> str:
        """The codec and its setting, as tables and figures print it; distinct."""

    @property
    def library(self) -> str:
        """The library that does the work, with its version."""

    @property
    def lossless(self) -> bool:
        """Whether ``decode(encode(pixels))`` returns ``pixels`` exactly."""

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
