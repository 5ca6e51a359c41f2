"""An image, its file made with the tiny model, and the command line in this process."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.image import png_bytes

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def pixels(smooth_image: Callable[..., Pixels]) -> Pixels:
    """uint8 [16, 16, 3], which the tiny model codes better than deflate."""
    return smooth_image(16, 16, 3, seed=0)


@pytest.fixture(scope="session")
def file_bytes(
    pixels: Pixels, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The lossless file of `pixels`."""
    from diffcodec.codec.effort import effort_level
    from diffcodec.codec.encoder import EncoderSettings, encode_image
    from diffcodec.codec.model import load_codec_model

    model = load_codec_model(tiny_folder)
    return encode_image(pixels, model, EncoderSettings.for_effort(effort_level(1))).data


@pytest.fixture
def image(tmp_path: Path, pixels: Pixels) -> Path:
    """``img.png`` in an empty folder."""
    path = tmp_path / "img.png"
    path.write_bytes(png_bytes(pixels))
    return path


@pytest.fixture
def file(tmp_path: Path, file_bytes: bytes) -> Path:
    """``img.dfc`` in an empty folder."""
    path = tmp_path / "img.dfc"
    path.write_bytes(file_bytes)
    return path


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """A function that puts bytes on standard input."""

    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give
