"""Image files ↔ uint8 arrays.

The codec takes what a lossless file can give back: 8-bit gray or RGB. Everything else is refused
with a message that says what was found, because a silent conversion would lose it.
"""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from diffcodec.errors import ImageError
from diffcodec.limits import PIXEL_LIMIT, excess_pixels

_EXPECTED = "expected one picture of 8-bit gray or RGB"
_BIT_DEPTH_OFFSET = 24  # in a PNG: signature 8, chunk length 4, "IHDR" 4, width 4, height 4
_TIFF_BITS_PER_SAMPLE = 258
_SGI_BYTES_A_SAMPLE_OFFSET = 3
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_JPEG_2000_COMPONENTS = 40  # from the start: markers 4, length 2, capabilities 2, eight sizes of 4
_AV1_HIGH_BIT_DEPTH = 0x40


def read_image(data: bytes, name: str, pixel_limit: int | None = PIXEL_LIMIT) -> NDArray[np.uint8]:
    """The pixels of an image file, uint8 [H, W, C]: C = 1 for gray, 3 for RGB and palettes.

    Pixels are kept in the order in which the file stores them: an EXIF orientation is not applied,
    so decoding restores the stored pixels and the tag itself is not kept. Colour profiles are
    neither applied nor kept. Of a JPEG with secondary pictures (MPO) the primary one is taken.

    ``name`` is for messages. ``pixel_limit`` bounds the area (`counted_pixels`) before anything is
    decoded; ``None`` lifts the bound.

    Raises :class:`ImageError` for anything that is not a whole single picture of 8-bit gray or RGB:
    more than 8 bits a sample (as far as PNG, TIFF, PPM, SGI, JPEG 2000 and AVIF tell, and Pillow's
    mode for others), animations, transparency (even where every pixel is opaque), CMYK and
    other colour models, damaged files and files that are no image.

    >>> read_image(png_bytes(np.full((2, 3, 1), 7, dtype=np.uint8)), "seven.png")[..., 0]
    array([[7, 7, 7],
           [7, 7, 7]], dtype=uint8)
    """
    try:
        with _pillow_alone(), Image.open(io.BytesIO(data)) as image:
            _refuse_unless_taken(image, data, name, pixel_limit)
            image.load()
            gray = image.mode in ("1", "L")
            pixels = np.array(image.convert("L" if gray else "RGB"), dtype=np.uint8)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        found = "an empty file" if not data else "no image format that Pillow knows"
        raise ImageError(f"{name}: {_EXPECTED}, found {found}") from None
    # Pillow's plugins raise whatever their parsers stumble on (struct.error, IndexError,
    # SyntaxError, zlib.error, …): for the user they all mean one thing.
    except Exception as error:
        raise ImageError(f"{name}: {_EXPECTED}, found a damaged file ({error})") from error
    return pixels[:, :, None] if gray else pixels


def unkept_metadata(data: bytes) -> list[str]:
    """What a file that `read_image` takes says of its pixels and a compressed one does not keep.

    Orientation and colour profile, by name: what changes how the picture looks.
    """
    found = []
    with _pillow_alone(), Image.open(io.BytesIO(data)) as image:
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        # Whatever its parser stumbles on: a tag that cannot be read turns no picture.
        except Exception:
            turned = False
        if turned:
            found.append("EXIF orientation")
        if image.info.get("icc_profile"):
            found.append("colour profile")
    return found


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of ``pixels``, uint8 [H, W, C] with C = 1 (gray) or 3 (RGB).

    Raises :class:`ValueError` for any other shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"expected uint8 [H, W, 1 or 3], got {pixels.dtype} {pixels.shape}")
    file = io.BytesIO()
    picture = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG")
    return file.getvalue()


def _refuse_unless_taken(
    image: Image.Image, data: bytes, name: str, pixel_limit: int | None
) -> None:
    """Raise :class:`ImageError` for an opened, not yet decoded image that the codec cannot keep."""
    width, height = image.size
    if (excess := excess_pixels(width, height, pixel_limit)) is not None:
        raise ImageError(f"{name}: {excess}")
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(f"{name}: {_EXPECTED}, found an animation or {frames} pages")
    if image.has_transparency_data:
        raise ImageError(
            f"{name}: {_EXPECTED}, found transparency ({image.mode}), which a lossless file would "
            "lose; flatten it first (magick IN -background white -alpha remove -alpha off OUT)"
        )
    if _bits_a_sample(image, data) > 8:
        raise ImageError(f"{name}: {_EXPECTED}, found more than 8 bits a sample ({image.mode})")
    if image.mode not in ("1", "L", "P", "RGB"):
        raise ImageError(f"{name}: {_EXPECTED}, found colour mode {image.mode}")


def _bits_a_sample(image: Image.Image, data: bytes) -> int:
    """Bits a sample as far as the file tells; Pillow narrows 16-bit RGB to 8 without a word."""
    if image.mode.startswith(("I", "F")):
        return 32 if image.mode in ("I", "F") else 16
    if image.format == "PNG":
        return data[_BIT_DEPTH_OFFSET]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    if image.format == "SGI":
        return 8 * data[_SGI_BYTES_A_SAMPLE_OFFSET]
    if image.format == "JPEG2000":
        return _jpeg_2000_bits(data)
    if image.format == "AVIF":
        return _avif_bits(data)
    for tile in getattr(image, "tile", ()):
        options = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        # A raw mode such as "RGB;16B", or the greatest value of a PPM.
        if any(isinstance(o, str) and ";16" in o for o in options):
            return 16
        if image.format == "PPM" and any(isinstance(o, int) and o > 255 for o in options):
            return 16
    return 8


def _jpeg_2000_bits(data: bytes) -> int:
    """The greatest of the components' depths in the SIZ marker (ISO/IEC 15444-1, A.5.1)."""
    start = data.find(_JPEG_2000_START) + _JPEG_2000_COMPONENTS
    count = int.from_bytes(data[start : start + 2], "big")
    return max((byte & 0x7F for byte in data[start + 2 : start + 2 + 3 * count : 3]), default=7) + 1


def _avif_bits(data: bytes) -> int:
    """10 where any picture's AV1 configuration says high bit depth (AV1-ISOBMFF, 2.3.3), else 8."""
    # The configurations stand together, before or behind the coded pictures.
    first = data.find(b"av1C")
    _, *boxes = data[first : data.find(b"mdat", first)].split(b"av1C")
    return 10 if any(box[2] & _AV1_HIGH_BIT_DEPTH for box in boxes if len(box) > 2) else 8


@contextmanager
def _pillow_alone() -> Iterator[None]:
    """Switch off Pillow's pixel limit, for which ``pixel_limit`` stands in, and its warnings.

    They are about metadata and palettes, which the codec does not keep.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def contact_sheet(images: Sequence[NDArray[np.uint8]], gap: int = 2) -> NDArray[np.uint8]:
    """Images of one shape, uint8 [H, W, C], row by row on a near-square sheet, white between."""
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    height, width, channels = images[0].shape
    columns = math.ceil(math.sqrt(len(images) * height / width))
    rows = math.ceil(len(images) / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet
