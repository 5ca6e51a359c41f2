from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcodec.bitstream.container import Container, Segment, SegmentInfo, assemble
from diffcodec.bitstream.header import Header, LastStage
from diffcodec.errors import BitstreamError, ChecksumError

NAME = "test.dfc"
PLAN = {"model_id": b"ab", "growth_index": 16, "parts": 64, "channel_code": 2}
LOSSY = Header(32, 32, 3, **PLAN, final_step=300)
LOSSLESS = Header(32, 32, 3, **PLAN, final_step=247, last_stage=LastStage.GAUSSIAN)
STORED = Header(32, 32, 3, last_stage=LastStage.STORED)
HOPS = bytes(range(40))
PAYLOAD = bytes(range(100, 200))

every_kind = pytest.mark.parametrize(
    ("header", "hops", "payload"),
    [(LOSSY, HOPS, b""), (LOSSLESS, HOPS, PAYLOAD), (STORED, b"", PAYLOAD)],
)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_open_restores_what_was_assembled(hops: bytes, payload: bytes) -> None:
    data = assemble(LOSSLESS, hops, payload)
    container = opened(data, hops)
    assert container.total_bytes == len(data)
    assert container.hops() == Segment(hops, complete=True)
    assert container.last_stage() == Segment(payload, complete=True)


def opened(data: bytes, hops: bytes) -> Container:
    """A file of ``hops``, whose end is told as their plan would."""
    container = Container.open(data, NAME)
    stored = container.header.last_stage is LastStage.STORED
    return container if stored else container.with_hop_bytes(len(hops))


@given(st.binary(max_size=200))
def test_lossy_files_end_with_their_hops(hops: bytes) -> None:
    data = assemble(LOSSY, hops)
    container = opened(data, hops)
    assert container.total_bytes == len(data)
    assert container.hops() == Segment(hops, complete=True)
    with pytest.raises(ValueError, match="no last stage"):
        container.last_stage()


@pytest.mark.parametrize("hops", [b"", HOPS])
@pytest.mark.parametrize(("header", "payload"), [(LOSSY, b""), (LOSSLESS, PAYLOAD)])
def test_of_a_file_alone_nothing_tells_where_its_hops_end(
    header: Header, payload: bytes, hops: bytes
) -> None:
    data = assemble(header, hops, payload)
    for length in range(len(header.pack()), len(data) + 1):
        container = Container.open(data[:length], NAME)
        assert container.total_bytes is None
        assert container.extent == f"{length} bytes"
        rest = data[len(container.header_bytes) : length]
        assert container.hops() == Segment(rest, complete=False)
        if header.last_stage is LastStage.GAUSSIAN:
            assert container.last_stage() == Segment(b"", complete=False)
        # The checks of a whole file tell, but for a chance that none of these has.
        known = container.by_its_checks()
        if length == len(data):
            assert known == opened(data, hops)
            assert known.by_its_checks() is known
            assert known.segments() == container.segments()
        else:
            assert known is container
            assert container.segments()[1:] == (
                SegmentInfo("hops", len(header.pack()), None, len(rest), None),
            )


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_checks_of_a_whole_file_tell_where_its_hops_end(hops: bytes, payload: bytes) -> None:
    data = assemble(LOSSLESS, hops, payload)
    assert Container.open(data, NAME).by_its_checks().last_stage().data == payload


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1 << 21])
def test_payloads_of_every_length_of_their_length(size: int) -> None:
    data = assemble(LOSSLESS, HOPS, bytes(size))
    assert Container.open(data, NAME).by_its_checks() == opened(data, HOPS)


@pytest.mark.parametrize("size", [127, 128, 16384, 1 << 21])
def test_a_payload_s_length_that_is_cut_off_is_not_taken_for_damage(size: int) -> None:
    data = assemble(LOSSLESS, HOPS, bytes(size))
    end = len(LOSSLESS.pack()) + len(HOPS)
    for length in range(end, len(data) - size):
        container = opened(data[:length], HOPS)
        assert not container.hops().complete or length >= len(data) - size - 1
        assert container.last_stage() == Segment(b"", complete=False)
        assert {segment.check_ok for segment in container.segments()[1:]} <= {None, True}


def test_stored_pixels_have_no_hops_whose_end_could_be_told() -> None:
    container = Container.open(assemble(STORED, b"", PAYLOAD), NAME)
    assert container.by_its_checks() is container
    with pytest.raises(ValueError, match="no hops"):
        container.with_hop_bytes(0)


def test_a_payload_s_length_that_is_no_varint_is_damage_to_the_hops() -> None:
    container = opened(LOSSLESS.pack() + HOPS + b"\x80\0" + PAYLOAD, HOPS)
    assert container.total_bytes is None
    with pytest.raises(ChecksumError, match="damaged hops"):
        container.hops()


def test_the_extent_is_told_for_people() -> None:
    data = assemble(LOSSLESS, HOPS, PAYLOAD)
    assert opened(data[:-1], HOPS).extent == f"{len(data) - 1} of {len(data)} bytes"
    assert Container.open(data[:-1], NAME).extent == f"{len(data) - 1} bytes"


@given(st.binary(max_size=200))
def test_stored_files_have_no_hops(payload: bytes) -> None:
    data = assemble(STORED, b"", payload)
    container = Container.open(data, NAME)
    assert container.total_bytes == len(data)
    assert container.hops() == Segment(b"", complete=True)
    assert container.last_stage() == Segment(payload, complete=True)


@pytest.mark.parametrize("hop_bytes", [127, 128, 16383])
def test_header_and_checks_of_a_small_image_take_10_bytes_and_11(hop_bytes: int) -> None:
    hops = bytes(hop_bytes)
    assert (len(LOSSY.pack()), len(LOSSLESS.pack())) == (8, 6)
    assert len(assemble(LOSSY, hops)) - hop_bytes == 10
    for payload_bytes in (1400, 16383):
        assert len(assemble(LOSSLESS, hops, bytes(payload_bytes))) == hop_bytes + payload_bytes + 11


@every_kind
def test_every_prefix_past_the_header_is_truncated_and_no_more(
    header: Header, hops: bytes, payload: bytes
) -> None:
    data = assemble(header, hops, payload)
    start = len(Container.open(data, NAME).header_bytes)
    for length in range(start, len(data)):
        container = opened(data[:length], hops)
        told = start + len(hops) + 1 if header.last_stage is LastStage.GAUSSIAN else start
        assert container.total_bytes == (len(data) if length >= told else None)
        found_hops = container.hops()
        assert found_hops.data == hops[: length - start]
        if header.last_stage is LastStage.NONE:
            assert not found_hops.complete
            continue
        found = container.last_stage()
        assert not found.complete
        assert payload.startswith(found.data)
        assert found_hops.complete or not found.data


@every_kind
def test_segments_tile_the_file(header: Header, hops: bytes, payload: bytes) -> None:
    data = assemble(header, hops, payload)
    for length in range(len(Container.open(data, NAME).header_bytes), len(data) + 1):
        segments = opened(data[:length], hops).segments()
        end = 0
        for segment in segments:
            assert segment.offset == end
            assert segment.check_ok is (True if segment.complete else None)
            if segment.length_bytes is None:
                assert segment is segments[-1]
                continue
            end += segment.length_bytes
        assert end == len(data) or segments[-1].length_bytes is None
        assert sum(segment.found_bytes for segment in segments) == length


def test_segments_tell_which_one_is_damaged() -> None:
    data = bytearray(assemble(LOSSLESS, HOPS, PAYLOAD))
    start = len(LOSSLESS.pack())
    data[start + 10] ^= 1
    assert opened(bytes(data[:-1]), HOPS).segments() == (
        SegmentInfo("header", 0, start, start, check_ok=True),
        SegmentInfo("hops", start, 43, 43, check_ok=False),
        SegmentInfo("last stage", start + 43, 101, 100, check_ok=None),
    )


@every_kind
def test_every_damaged_byte_is_detected(header: Header, hops: bytes, payload: bytes) -> None:
    data = assemble(header, hops, payload)
    for position in range(len(data)):
        for flip in (1, 0x10, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(BitstreamError, match=NAME):
                read_whole(bytes(damaged), hops)


def read_whole(data: bytes, hops: bytes) -> None:
    container = opened(data, hops)
    container.hops()
    if container.header.last_stage is not LastStage.NONE:
        container.last_stage()


@every_kind
def test_bytes_after_the_end_are_refused(header: Header, hops: bytes, payload: bytes) -> None:
    with pytest.raises(BitstreamError, match="found 1 more"):
        opened(assemble(header, hops, payload) + b"\0", hops)


def test_a_damaged_payload_leaves_the_hops() -> None:
    data = bytearray(assemble(LOSSLESS, HOPS, PAYLOAD))
    data[-1] ^= 1
    container = Container.open(bytes(data), NAME).by_its_checks()
    assert container.hops() == Segment(HOPS, complete=True)
    with pytest.raises(ChecksumError, match="damaged last stage"):
        container.last_stage()


@pytest.mark.parametrize(
    ("header", "hops", "payload"), [(LOSSY, HOPS, b""), (STORED, b"", PAYLOAD)]
)
def test_the_first_check_covers_the_header(header: Header, hops: bytes, payload: bytes) -> None:
    data = assemble(header, hops, payload)
    gray = replace(header, channels=1, payload_bytes=len(payload)).pack()
    container = opened(gray + data[len(gray) :], hops)
    assert [segment.check_ok for segment in container.segments()] == [True, False]


def test_assemble_refuses_segments_that_the_header_excludes() -> None:
    with pytest.raises(ValueError, match="no payload in a lossy file"):
        assemble(LOSSY, HOPS, PAYLOAD)
    with pytest.raises(ValueError, match="no hops"):
        assemble(STORED, HOPS, PAYLOAD)
