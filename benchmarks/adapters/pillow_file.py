"""What the codecs behind Pillow share: arrays to files in memory and back."""

import io
from typing import Any

import numpy as np
from PIL import Image

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
