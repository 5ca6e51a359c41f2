"""The header: what both ends know before the first packet (docs/format.md, Header)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from diffcodec.bits import BitReader, BitWriter
from diffcodec.bitstream.crc import crc8
from diffcodec.errors import (
    BadMagicError,
    BitstreamError,
    ChecksumError,
    PixelLimitError,
    TruncatedStreamError,
    UnsupportedVersionError,
)
from diffcodec.limits import PIXEL_LIMIT, excess_pixels

MAGIC = 0xDFC
VERSION = 12
FINEST_STEPS = 1000
"""T: steps of the finest grid, on which hops begin and end."""
MODEL_ID_BYTES = 2
NO_MODEL = bytes(MODEL_ID_BYTES)

MAGIC_AND_VERSION_BYTES = 2
MOST_FIELD_BYTES = 8
"""Of a header whose end and plan are spelt out: what may precede the varints."""
FIXED_HEADER_BYTES = 5
"""Magic and version, model id, flags: what every header has before its check."""
PARTS = (1, 4, 16, 64)
"""Most packets of a hop, in the order of the header's field."""
COMMON_SIDE = 32
"""Width and height of images whose header does not spell them out."""
COMMON_FINAL_STEP = 247
"""Where the hops of lossless files end whose header does not spell it out: γ = −7.8 of the shipped
model."""
COMMON_PARTS = 64
COMMON_GROWTH_INDICES = (63, 48, 40, 32, 24, 16, 12, 9, 7, 5)
COMMON_CHANNEL_CODES = (0, 2, 3)
"""Of plans that the header names by one number: a growth's place times 3, plus a code's."""
_NO_PLAN, _SPELT_OUT = 30, 31
LONGEST_VARINT = 5
_VARINT_LIMIT = 1 << 32


class LastStage(IntEnum):
    """What follows the hops."""

    NONE = 0
    """Nothing: a lossy file."""
    GAUSSIAN = 1
    """The exact pixels, entropy-coded under a discretized Gaussian."""
    STORED = 2
    """No hops and no model: the pixels, deflated."""


@dataclass(frozen=True)
class Header:
    """The fields of a header; :class:`ValueError` where a field does not fit its bits.

    ``width``, ``height`` in pixels; ``channels`` 3 (RGB) or 1 (gray); ``model_id`` the first bytes
    of the checkpoint's digest; ``growth_index`` 0…63 and ``parts``, one of `PARTS`, name the hop
    plan; ``channel_code`` 0…3 names the channel code; hops run from step T down to ``final_step``,
    0…1000, and end where their plan does: no length is told before what every prefix needs.
    ``payload_bytes`` is the length of stored pixels, else 0.
    """

    width: int
    height: int
    channels: int
    model_id: bytes = NO_MODEL
    last_stage: LastStage = LastStage.NONE
    growth_index: int = 0
    parts: int = 1
    channel_code: int = 0
    final_step: int = 0
    payload_bytes: int = 0

    def __post_init__(self) -> None:
        if (fault := _fault(self)) is not None:
            raise ValueError(fault)

    @property
    def dimensions(self) -> int:
        """height · width · channels."""
        return self.height * self.width * self.channels

    def pack(self) -> bytes:
        """The header's bytes, its check included."""
        plan = _plan_number(self)
        common_size = (self.width, self.height) == (COMMON_SIDE, COMMON_SIDE)
        common_end = (self.last_stage, self.final_step) == _COMMON_END
        writer = BitWriter()
        writer.write(MAGIC, 12)
        writer.write(VERSION, 4)
        writer.write(int.from_bytes(self.model_id, "big"), 8 * MODEL_ID_BYTES)
        writer.write(self.channels == 1, 1)
        writer.write(common_size, 1)
        writer.write(common_end, 1)
        writer.write(plan, 5)
        if not common_end:
            writer.write(self.last_stage, 2)
            writer.write(self.final_step, 10)
        if plan == _SPELT_OUT:
            writer.write(self.growth_index, 6)
            writer.write(PARTS.index(self.parts), 2)
            writer.write(self.channel_code, 2)
        numbers = [] if common_size else [self.width - 1, self.height - 1]
        if self.last_stage is LastStage.STORED:
            numbers.append(self.payload_bytes)
        packed = writer.to_bytes() + b"".join(map(pack_varint, numbers))
        return packed + bytes([crc8(packed)])

    @staticmethod
    def unpack(
        data: bytes, name: str, pixel_limit: int | None = PIXEL_LIMIT
    ) -> tuple["Header", int]:
        """The header at the beginning of ``data`` and its length in bytes.

        ``name`` is the file's, for messages. Raises :class:`BadMagicError`,
        :class:`UnsupportedVersionError`, :class:`TruncatedStreamError` where the data end inside
        the header, :class:`ChecksumError`, :class:`PixelLimitError` for more than ``pixel_limit``
        pixels (`counted_pixels`; ``None``: no limit), and :class:`BitstreamError` for reserved
        values.

        >>> header = Header(32, 32, 3, model_id=b"ab", final_step=17)
        >>> packed = header.pack()
        >>> Header.unpack(packed + b"hops", "example.dfc") == (header, len(packed))
        True
        """
        _check_beginning(data, name)
        fields, common_size, position = _unpack_fields(data, name)
        width = height = COMMON_SIDE
        payload_bytes = 0
        if not common_size:
            width_less_1, position = unpack_varint(data, position, name)
            height_less_1, position = unpack_varint(data, position, name)
            width, height = width_less_1 + 1, height_less_1 + 1
        if fields.last_stage == LastStage.STORED:
            payload_bytes, position = unpack_varint(data, position, name)
        if position >= len(data):
            raise _truncated(data, name)
        if (expected := crc8(data[:position])) != (found := data[position]):
            raise ChecksumError(
                f"{name}: damaged header: its check is {found:#04x}, expected {expected:#04x}"
            )
        if fields.last_stage not in tuple(LastStage):
            raise BitstreamError(
                f"{name}: expected a last stage of 0 to 2, found {fields.last_stage}"
            )
        try:
            header = Header(
                width=width,
                height=height,
                channels=fields.channels,
                model_id=fields.model_id,
                last_stage=LastStage(fields.last_stage),
                growth_index=fields.growth_index,
                parts=fields.parts,
                channel_code=fields.channel_code,
                final_step=fields.final_step,
                payload_bytes=payload_bytes,
            )
        except ValueError as error:
            raise BitstreamError(f"{name}: {error}") from None
        if (shortest := header.pack()) != data[: position + 1]:
            raise BitstreamError(
                f"{name}: expected the header in its one form, {shortest.hex()}, "
                f"found {data[: position + 1].hex()}"
            )
        if (excess := excess_pixels(header.width, header.height, pixel_limit)) is not None:
            raise PixelLimitError(f"{name}: {excess}")
        return header, position + 1


_COMMON_END = (LastStage.GAUSSIAN, COMMON_FINAL_STEP)


class _Fields(NamedTuple):
    """A header's fields of bits as they were found."""

    channels: int
    model_id: bytes
    last_stage: int
    growth_index: int
    parts: int
    channel_code: int
    final_step: int


def _plan_number(header: Header) -> int:
    """How the flags name the hop plan."""
    if header.last_stage is LastStage.STORED:
        return _NO_PLAN
    if (
        header.parts != COMMON_PARTS
        or header.growth_index not in COMMON_GROWTH_INDICES
        or header.channel_code not in COMMON_CHANNEL_CODES
    ):
        return _SPELT_OUT
    growth = COMMON_GROWTH_INDICES.index(header.growth_index)
    return growth * len(COMMON_CHANNEL_CODES) + COMMON_CHANNEL_CODES.index(header.channel_code)


def _unpack_fields(data: bytes, name: str) -> tuple[_Fields, bool, int]:
    """What the header's bits say, whether the size is the common one, and where bytes go on."""
    reader = BitReader(data[MAGIC_AND_VERSION_BYTES:MOST_FIELD_BYTES])
    try:
        model_id = reader.read(8 * MODEL_ID_BYTES).to_bytes(MODEL_ID_BYTES, "big")
        channels = 1 if reader.read(1) else 3
        common_size, common_end, plan = reader.read(1), reader.read(1), reader.read(5)
        last_stage, final_step = _COMMON_END if common_end else (reader.read(2), reader.read(10))
        growth_index, parts, channel_code = 0, PARTS[0], 0
        if plan == _SPELT_OUT:
            growth_index, parts, channel_code = (
                reader.read(6),
                PARTS[reader.read(2)],
                reader.read(2),
            )
        elif plan != _NO_PLAN:
            growth, code = divmod(plan, len(COMMON_CHANNEL_CODES))
            growth_index, parts = COMMON_GROWTH_INDICES[growth], COMMON_PARTS
            channel_code = COMMON_CHANNEL_CODES[code]
    except TruncatedStreamError:
        raise _truncated(data, name) from None
    fields = _Fields(channels, model_id, last_stage, growth_index, parts, channel_code, final_step)
    return fields, bool(common_size), MAGIC_AND_VERSION_BYTES - (-reader.position // 8)


def _fault(header: Header) -> str | None:
    """What is wrong with a header's fields, or ``None``."""
    ranges = (
        ("width", header.width, 1, _VARINT_LIMIT),
        ("height", header.height, 1, _VARINT_LIMIT),
        ("growth index", header.growth_index, 0, 63),
        ("channel code", header.channel_code, 0, 3),
        ("final step", header.final_step, 0, FINEST_STEPS),
        ("payload length", header.payload_bytes, 0, _VARINT_LIMIT - 1),
    )
    for field, value, low, high in ranges:
        if not low <= value <= high:
            return f"expected a {field} of {low} to {high}, found {value}"
    if header.parts not in PARTS:
        return f"expected 1, 4, 16 or 64 parts, found {header.parts}"
    if header.channels not in (1, 3):
        return f"expected 1 or 3 channels, found {header.channels}"
    if len(header.model_id) != MODEL_ID_BYTES:
        return f"expected a model id of {MODEL_ID_BYTES} bytes, found {len(header.model_id)}"
    if header.last_stage is not LastStage.STORED and header.payload_bytes:
        return f"expected no length in a header with hops, found {header.payload_bytes} bytes"
    plan = (header.growth_index, header.parts, header.channel_code, header.final_step)
    if header.last_stage is LastStage.STORED and (plan != (0, 1, 0, 0) or any(header.model_id)):
        return "expected stored pixels to name no model and no hop plan, found one"
    return None


def _check_beginning(data: bytes, name: str) -> None:
    """Raise unless ``data`` begin with the magic and a known version and hold the flags."""
    magic = MAGIC.to_bytes(2, "big")  # 0D FC, of which a file holds the last 12 bits
    nibbles = data[:2].hex()[:3]
    if not magic.hex()[1:].startswith(nibbles):
        raise BadMagicError(
            f"{name}: not a diffcodec file: expected it to begin with {MAGIC:03x}, found {nibbles}"
        )
    if len(data) >= 2 and (version := data[1] & 0xF) != VERSION:
        raise UnsupportedVersionError(f"{name}: expected format version {VERSION}, found {version}")
    if len(data) < FIXED_HEADER_BYTES:
        raise _truncated(data, name)


def _truncated(data: bytes, name: str) -> TruncatedStreamError:
    found = f"a file that ends inside it, at {len(data)} bytes" if data else "an empty file"
    return TruncatedStreamError(f"{name}: expected a whole header, found {found}")


def pack_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, least significant first, the top bit set on all but the last."""
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def unpack_varint(data: bytes, position: int, name: str) -> tuple[int, int]:
    """The LEB128 integer at ``position``, below 2³² and in its shortest form; the position after.

    Each integer has one form, so that equal files are equal bytes. Raises
    :class:`TruncatedStreamError` where the data end inside it, and :class:`BitstreamError`.
    """
    value = 0
    for index in range(LONGEST_VARINT):
        if position + index >= len(data):
            raise _truncated(data, name)
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value >= _VARINT_LIMIT or (index and not byte):
                break
            return value, position + index + 1
    raise BitstreamError(
        f"{name}: expected an integer below 2^32 in its shortest form at byte {position}, found "
        f"{data[position : position + LONGEST_VARINT].hex(' ')}"
    )
