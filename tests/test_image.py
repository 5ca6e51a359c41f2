import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features

from diffcodec.errors import ImageError
from diffcodec.image import png_bytes, read_image

Pixels = NDArray[np.uint8]


def file_of(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=file_format, **options)
    return file.getvalue()


def png_of(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG of kinds that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 1 << 32))
def test_read_restores_what_was_written(height: int, width: int, channels: int, seed: int) -> None:
    raw = np.random.Philox(seed).random_raw(height * width * channels) & 0xFF
    pixels = raw.astype(np.uint8).reshape(height, width, channels)
    found = read_image(png_bytes(pixels), "test.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_keep_their_pixels(
    drawn_image: Callable[..., Pixels], file_format: str
) -> None:
    pixels = drawn_image(9, 13, 3, 0)
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = file_of(Image.fromarray(pixels), file_format, **options)
    np.testing.assert_array_equal(read_image(data, "test"), pixels)


def test_palettes_become_rgb_and_bilevel_becomes_gray(drawn_image: Callable[..., Pixels]) -> None:
    picture = Image.fromarray(drawn_image(8, 8, 3, 0))
    palette = picture.quantize(16)
    found = read_image(file_of(palette), "palette.png")
    np.testing.assert_array_equal(found, np.asarray(palette.convert("RGB")))
    found = read_image(file_of(picture.convert("1")), "bilevel.png")
    assert found.shape == (8, 8, 1)
    assert set(np.unique(found)) <= {0, 255}


def test_exif_orientation_leaves_the_pixels_as_stored(
    drawn_image: Callable[..., Pixels],
) -> None:
    pixels = drawn_image(4, 6, 3, 0)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    data = file_of(image, exif=exif)
    np.testing.assert_array_equal(read_image(data, "turned.png"), pixels)


BLACK = Image.new("RGB", (4, 4))
OPAQUE_PALETTE = Image.new("P", (4, 4))
SIXTEEN_BIT_RGB_TIFF = (
    b"II*\0\x08\0\0\0"
    + struct.pack("<H", 8)
    + struct.pack("<HHIHH", 256, 3, 1, 1, 0)  # width
    + struct.pack("<HHIHH", 257, 3, 1, 1, 0)  # height
    + struct.pack("<HHII", 258, 3, 3, 110)  # bits a sample
    + struct.pack("<HHIHH", 259, 3, 1, 1, 0)  # not compressed
    + struct.pack("<HHIHH", 262, 3, 1, 2, 0)  # RGB
    + struct.pack("<HHII", 273, 4, 1, 116)  # strip offset
    + struct.pack("<HHIHH", 277, 3, 1, 3, 0)  # samples a pixel
    + struct.pack("<HHII", 279, 4, 1, 6)  # strip length
    + bytes(4)
    + struct.pack("<HHH", 16, 16, 16)
    + bytes(6)
)


def deep_jpeg_2000(**options: Any) -> bytes:
    """A JPEG 2000 file whose green channel says that it has 12 bits a sample."""
    data = bytearray(file_of(BLACK, "JPEG2000", **options))
    data[data.find(b"\xff\x4f\xff\x51") + 42 + 3] = 11
    return bytes(data)


def deep_avif() -> bytes:
    """An AVIF file that says it has 10 bits a sample in both places where that stands."""
    data = bytearray(file_of(Image.new("RGB", (8, 8)), "AVIF"))
    data[data.find(b"av1C") + 6] |= 0x40
    depths = data.find(b"pixi") + 9
    data[depths : depths + 3] = bytes([10, 10, 10])
    return bytes(data)


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_jpeg_2000_tells_its_depth(options: dict[str, Any]) -> None:
    assert read_image(file_of(BLACK, "JPEG2000", **options), "black.jp2").shape == (4, 4, 3)
    with pytest.raises(ImageError, match=r"^deep\.jp2: .*more than 8 bits a sample"):
        read_image(deep_jpeg_2000(**options), "deep.jp2")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_tells_its_depth() -> None:
    assert read_image(file_of(Image.new("RGB", (8, 8)), "AVIF"), "black.avif").shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"^deep\.avif: .*more than 8 bits a sample"):
        read_image(deep_avif(), "deep.avif")


def test_pillow_s_warnings_are_not_the_user_s(recwarn: pytest.WarningsRecorder) -> None:
    # A TIFF directory that promises more entries than there are.
    data = bytearray(file_of(Image.new("L", (4, 4)), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    data[start] += 5
    with contextlib.suppress(ImageError):
        read_image(bytes(data), "odd.tiff")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (file_of(BLACK, "SGI", bpc=2), "more than 8 bits a sample"),
        (file_of(Image.new("I;16", (4, 4))), "more than 8 bits a sample"),
        (png_of(1, 1, 16, 2, bytes(7)), "more than 8 bits a sample"),
        (png_of(1, 1, 16, 0, bytes(3)), "more than 8 bits a sample"),
        (b"P6 1 1 65535\n" + bytes(6), "more than 8 bits a sample"),
        (b"P5 1 1 65535\n" + bytes(2), "more than 8 bits a sample"),
        (SIXTEEN_BIT_RGB_TIFF, "more than 8 bits a sample"),
        (file_of(Image.new("I", (4, 4)), "TIFF"), "more than 8 bits a sample"),
        (file_of(Image.new("F", (4, 4)), "TIFF"), "more than 8 bits a sample"),
        (file_of(Image.new("RGBA", (4, 4), (1, 2, 3, 255))), "transparency"),
        (file_of(Image.new("LA", (4, 4))), "transparency"),
        (file_of(OPAQUE_PALETTE, transparency=0), "transparency"),
        (file_of(BLACK, transparency=(0, 0, 0)), "transparency"),
        (file_of(Image.new("CMYK", (4, 4)), "TIFF"), "CMYK"),
        (file_of(Image.new("LAB", (4, 4)), "TIFF"), "LAB"),
        (
            file_of(BLACK, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")]),
            "an animation or 2 pages",
        ),
        (b"", "an empty file"),
        (b"no image at all", "no image format"),
        (file_of(BLACK)[:45], "a damaged file"),
    ],
)
def test_what_the_codec_cannot_keep_is_refused_by_name(data: bytes, found: str) -> None:
    with pytest.raises(ImageError, match=rf"^odd\.img: expected .* found .*{found}"):
        read_image(data, "odd.img")


@given(st.data())
def test_damaged_files_are_image_errors(data: st.DataObject) -> None:
    damaged = bytearray(file_of(BLACK))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        pixels = read_image(bytes(damaged), "odd.png", pixel_limit=1 << 12)
    except ImageError:
        return
    assert pixels.dtype == np.uint8


def test_the_pixel_limit_holds_before_decoding_and_can_be_lifted() -> None:
    data = file_of(Image.new("L", (40, 30)))
    with pytest.raises(ImageError, match="at most 2047 pixels, found 40×30, which is 2048"):
        read_image(data, "large.png", pixel_limit=2047)
    assert read_image(data, "large.png", pixel_limit=2048).shape == (30, 40, 1)
    assert read_image(data, "large.png", pixel_limit=None).shape == (30, 40, 1)


def test_a_bomb_is_refused_without_decoding_it() -> None:
    bomb = png_of(100_000, 100_000, 8, 2, b"")
    with pytest.raises(ImageError, match="at most 16777216 pixels, found 100000×100000"):
        read_image(bomb, "bomb.png")


def test_pillow_s_own_limit_is_left_as_it_was() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError):
        read_image(b"", "empty.png")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 4)])
def test_other_shapes_are_no_png(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        png_bytes(np.zeros(shape, dtype=np.uint8))
