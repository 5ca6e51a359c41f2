"""What the codecs behind Pillow share: arrays to files in memory and back."""

import io
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from benchmarks.adapters.base import Pixels


def pack(pixels: Pixels, image_format: str, **options: Any) -> bytes:
    """The file of uint8 ``[H, W, 3]`` in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def unpack(data: bytes, image_format: str) -> Pixels:
    """uint8 ``[H, W, 3]`` of a file in the stated format."""
    with Image.open(io.BytesIO(data), formats=[image_format]) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def library(name: str, feature: str) -> str:
    """Pillow and the library behind one of its features, both with their versions."""
    return f"Pillow {PIL.__version__}, {name} {features.version(feature)}"


def supported(feature: str) -> bool:
    """Whether this Pillow was built with a feature."""
    # Pillow's stubs leave the return type open.
    return bool(features.check(feature))
