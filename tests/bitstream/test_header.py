import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.bits import BitWriter
from diffcodec.bitstream.crc import crc8
from diffcodec.bitstream.header import (
    COMMON_FINAL_STEP,
    COMMON_GROWTH_INDICES,
    COMMON_PARTS,
    FINEST_STEPS,
    FIXED_HEADER_BYTES,
    NO_MODEL,
    PARTS,
    VERSION,
    Header,
    LastStage,
)
from diffcodec.codec.effort import EFFORTS, effort_level
from diffcodec.codec.encoder import HANDOVER_GAMMA
from diffcodec.diffusion.schedule import make_schedule
from diffcodec.errors import (
    BadMagicError,
    BitstreamError,
    ChecksumError,
    PixelLimitError,
    TruncatedStreamError,
    UnsupportedVersionError,
)
from diffcodec.model.configs import MODEL_CONFIGS

NAME = "test.dfc"
SIZES = st.integers(1, 1 << 32)
# What is common takes another form than what is not.
SIDES = st.tuples(SIZES, SIZES) | st.sampled_from([(32, 32), (32, 33), (31, 32)])
LENGTHS = st.integers(0, (1 << 32) - 1)


def coded(last_stage: st.SearchStrategy[LastStage]) -> st.SearchStrategy[Header]:
    return st.builds(
        lambda sides, **fields: Header(*sides, **fields),
        sides=SIDES,
        channels=st.sampled_from([1, 3]),
        model_id=st.binary(min_size=2, max_size=2),
        last_stage=last_stage,
        growth_index=st.integers(0, 63) | st.sampled_from(COMMON_GROWTH_INDICES),
        parts=st.sampled_from((*PARTS, COMMON_PARTS)),
        channel_code=st.integers(0, 3),
        final_step=st.integers(0, FINEST_STEPS) | st.just(COMMON_FINAL_STEP),
    )


STORED = st.builds(
    lambda sides, channels, payload: Header(
        sides[0], sides[1], channels, last_stage=LastStage.STORED, payload_bytes=payload
    ),
    SIDES,
    st.sampled_from([1, 3]),
    LENGTHS,
)
COMMON = Header(
    32,
    32,
    3,
    model_id=b"ab",
    last_stage=LastStage.GAUSSIAN,
    growth_index=16,
    parts=COMMON_PARTS,
    channel_code=2,
    final_step=COMMON_FINAL_STEP,
)
HEADERS = coded(st.sampled_from([LastStage.NONE, LastStage.GAUSSIAN])) | STORED


def raw_header(**fields: int) -> bytes:
    """The header of a 32×32 lossy file with any bits at all in its fields, and a right check."""
    layout = {
        "magic": (0xDFC, 12),
        "version": (VERSION, 4),
        "model_id": (0, 16),
        "gray": (0, 1),
        "common_size": (1, 1),
        "common_end": (0, 1),
        "plan": (31, 5),
        "last_stage": (0, 2),
        "final_step": (0, 10),
        "growth_index": (0, 6),
        "log4_parts": (0, 2),
        "channel_code": (0, 2),
        "padding": (0, 2),
    }
    given = {field: fields.get(field, value) for field, (value, _) in layout.items()}
    absent = {"last_stage", "final_step"} if given["common_end"] else set()
    if given["plan"] != 31:
        absent |= {"growth_index", "log4_parts", "channel_code"}
    if len(absent) in (2, 5):
        absent.add("padding")
    writer = BitWriter()
    for field, (_, bits) in layout.items():
        if field not in absent:
            writer.write(given[field], bits)
    # Sides of 32 where the size is not marked as the common one; a length of stored pixels.
    packed = writer.to_bytes() + (b"" if given["common_size"] else b"\x1f\x1f")
    packed += bytes(given["last_stage"] == LastStage.STORED and not given["common_end"])
    return packed + bytes([crc8(packed)])


@given(HEADERS, st.binary(max_size=8))
def test_unpack_restores_what_was_packed(header: Header, rest: bytes) -> None:
    packed = header.pack()
    assert Header.unpack(packed + rest, NAME, pixel_limit=None) == (header, len(packed))


@given(HEADERS)
def test_every_truncated_header_says_so(header: Header) -> None:
    packed = header.pack()
    for length in range(len(packed)):
        with pytest.raises(TruncatedStreamError, match=NAME):
            Header.unpack(packed[:length], NAME, pixel_limit=None)


@given(HEADERS, st.binary(min_size=8, max_size=8))
@settings(max_examples=20, deadline=None)
def test_a_damaged_byte_is_detected_wherever_the_length_stays(header: Header, rest: bytes) -> None:
    data = header.pack() + rest
    length = len(header.pack())
    for position in range(length):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[position] ^= flip
            try:
                _, found = Header.unpack(bytes(damaged), NAME, pixel_limit=None)
            except BitstreamError:
                continue
            assert found != length


def test_every_damaged_byte_of_the_smallest_header_is_detected() -> None:
    packed = COMMON.pack()
    assert len(packed) == FIXED_HEADER_BYTES + 1
    for position in range(len(packed)):
        for flip in range(1, 256):
            damaged = bytearray(packed)
            damaged[position] ^= flip
            with pytest.raises(BitstreamError, match=NAME):
                Header.unpack(bytes(damaged), NAME)


def test_raw_header_is_a_header() -> None:
    assert raw_header() == Header(32, 32, 3).pack()


@pytest.mark.parametrize("fields", [{"magic": 0xDFD}, {"magic": 0x895}, {"magic": 0}])
def test_other_beginnings_are_no_diffcodec_file(fields: dict[str, int]) -> None:
    with pytest.raises(BadMagicError, match="expected it to begin with dfc"):
        Header.unpack(raw_header(**fields), NAME)


def test_a_wrong_first_byte_is_no_truncated_file() -> None:
    with pytest.raises(BadMagicError):
        Header.unpack(b"\x89", NAME)


@pytest.mark.parametrize("version", [*range(VERSION), VERSION + 1, 15])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(
        UnsupportedVersionError, match=f"expected format version {VERSION}, found {version}"
    ):
        Header.unpack(raw_header(version=version), NAME)


@pytest.mark.parametrize(
    "fields",
    [
        {"last_stage": 3},
        {"final_step": 1001},
        {"final_step": 1023},
        {"last_stage": 2, "plan": 30, "model_id": 1},
        {"last_stage": 2, "plan": 30, "final_step": 1},
        {"last_stage": 2, "growth_index": 1},
        {"last_stage": 2, "plan": 0},
        {"plan": 30},
        {"common_end": 1, "plan": 30},
    ],
)
def test_reserved_values_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(BitstreamError, match="expected"):
        Header.unpack(raw_header(**fields), NAME)


@pytest.mark.parametrize(("parts", "field"), [(1, 0), (4, 1), (16, 2), (64, 3)])
def test_parts_are_told_by_their_logarithm(parts: int, field: int) -> None:
    assert raw_header(log4_parts=field) == Header(32, 32, 3, parts=parts).pack()


@pytest.mark.parametrize(
    "fields",
    [
        {"common_size": 0},
        {"last_stage": 1, "final_step": 247},
        {"growth_index": 16, "log4_parts": 3, "channel_code": 2},
        {"padding": 1},
        {"plan": 17, "padding": 1},
        {"last_stage": 2},
    ],
)
def test_a_header_has_one_form(fields: dict[str, int]) -> None:
    with pytest.raises(BitstreamError, match="expected the header in its one form"):
        Header.unpack(raw_header(**fields), NAME)


@pytest.mark.parametrize(("fields", "length"), [({}, 6), ({"final_step": 248}, 8)])
@pytest.mark.parametrize(("plan", "growth_index", "channel_code"), [(0, 63, 0), (17, 16, 3)])
def test_common_plans_and_ends_are_named_by_a_number(
    fields: dict[str, int], length: int, plan: int, growth_index: int, channel_code: int
) -> None:
    header = replace(
        COMMON,
        model_id=NO_MODEL,
        growth_index=growth_index,
        channel_code=channel_code,
        final_step=fields.get("final_step", COMMON_FINAL_STEP),
    )
    named = raw_header(common_end=int(not fields), plan=plan, last_stage=1, **fields)
    assert header.pack() == named
    assert len(named) == length


def test_every_level_s_plan_and_the_shipped_model_s_end_are_common_ones() -> None:
    schedule = make_schedule(MODEL_CONFIGS["default"].schedule)
    assert schedule.step_at_gamma(HANDOVER_GAMMA) == COMMON_FINAL_STEP
    for effort in EFFORTS:
        plan = effort_level(effort).plan
        header = replace(
            COMMON,
            growth_index=plan.growth_index,
            parts=plan.parts,
            channel_code=plan.code_id,
        )
        assert len(header.pack()) == FIXED_HEADER_BYTES + 1


@pytest.mark.parametrize("varint", ["8000", "ff00", "8080808010", "ffffffff7f", "808080808001"])
def test_varints_out_of_range_or_not_in_shortest_form_are_refused(varint: str) -> None:
    packed = raw_header(common_size=0)[:8] + bytes.fromhex(varint) + b"\0"
    with pytest.raises(BitstreamError, match="shortest form"):
        Header.unpack(packed + bytes([crc8(packed)]), NAME)


def test_a_wrong_check_is_named_with_the_right_one() -> None:
    packed = bytearray(Header(32, 32, 3).pack())
    expected = packed[-1]
    packed[-1] ^= 1
    with pytest.raises(ChecksumError, match=f"expected {expected:#04x}"):
        Header.unpack(bytes(packed), NAME)


def test_the_pixel_limit_can_be_lifted() -> None:
    packed = Header(1 << 14, 1 << 13, 3).pack()
    with pytest.raises(PixelLimitError, match="at most 16777216 pixels, found 16384×8192"):
        Header.unpack(packed, NAME)
    assert Header.unpack(packed, NAME, pixel_limit=1 << 27)[0].dimensions == 3 << 27


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 0},
        {"height": (1 << 32) + 1},
        {"channels": 4},
        {"model_id": b"abc"},
        {"growth_index": 64},
        {"parts": 0},
        {"parts": 8},
        {"parts": 256},
        {"channel_code": 4},
        {"final_step": 1001},
        {"last_stage": LastStage.STORED, "payload_bytes": 1 << 32},
        {"last_stage": LastStage.GAUSSIAN, "payload_bytes": 1},
        {"payload_bytes": 1},
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Header(**{"width": 32, "height": 32, "channels": 3, **fields})  # type: ignore[arg-type]


def test_the_specification_s_example() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "format.md").read_text("utf-8")
    example = re.search(r"<!-- example: header -->\n```\n([0-9a-f \n]+)```", text)
    assert example is not None
    packed = bytes.fromhex(example[1])
    header = Header(
        width=32,
        height=32,
        channels=3,
        model_id=bytes.fromhex("c0ff"),
        last_stage=LastStage.GAUSSIAN,
        growth_index=20,
        parts=4,
        channel_code=1,
        final_step=40,
    )
    assert Header.unpack(packed, "docs/format.md") == (header, len(packed))
    assert header.pack() == packed


def test_no_model_is_what_stored_pixels_name() -> None:
    assert Header(1, 1, 1, last_stage=LastStage.STORED).model_id == NO_MODEL
