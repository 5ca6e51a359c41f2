import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcodec.bitstream.container import Container, Segment, SegmentInfo, assemble
from diffcodec.bitstream.header import Header, LastStage
from diffcodec.errors import BitstreamError, ChecksumError

NAME = "test.dfc"
LOSSY = Header(32, 32, 3, model_id=b"ab", final_step=300)
LOSSLESS = Header(32, 32, 3, model_id=b"ab", final_step=30, last_stage=LastStage.GAUSSIAN)
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
    container = Container.open(data, NAME)
    assert (container.header.hop_bytes, container.header.payload_bytes) == (
        len(hops),
        len(payload),
    )
    assert container.total_bytes == len(data)
    assert container.hops() == Segment(hops, complete=True)
    assert container.last_stage() == Segment(payload, complete=True)


@given(st.binary(max_size=200))
def test_lossy_files_end_with_their_hops(hops: bytes) -> None:
    data = assemble(LOSSY, hops)
    container = Container.open(data, NAME)
    assert container.total_bytes == len(data)
    assert container.hops() == Segment(hops, complete=True)
    with pytest.raises(ValueError, match="no last stage"):
        container.last_stage()


@given(st.binary(max_size=200))
def test_stored_files_have_no_hops(payload: bytes) -> None:
    data = assemble(STORED, b"", payload)
    container = Container.open(data, NAME)
    assert container.total_bytes == len(data)
    assert container.hops() == Segment(b"", complete=True)
    assert container.last_stage() == Segment(payload, complete=True)


@pytest.mark.parametrize(("hop_bytes", "lossy"), [(127, 12), (128, 13), (16383, 13)])
def test_header_and_checks_of_a_small_image_take_at_most_16_bytes(
    hop_bytes: int, lossy: int
) -> None:
    hops = bytes(hop_bytes)
    assert len(assemble(LOSSY, hops)) - len(hops) == lossy
    for payload_bytes in (1400, 16383):
        assert len(assemble(LOSSLESS, hops, bytes(payload_bytes))) <= hop_bytes + payload_bytes + 16


@every_kind
def test_every_prefix_past_the_header_is_truncated_and_no_more(
    header: Header, hops: bytes, payload: bytes
) -> None:
    data = assemble(header, hops, payload)
    whole = Container.open(data, NAME)
    start = len(whole.header_bytes)
    for length in range(start, len(data)):
        container = Container.open(data[:length], NAME)
        assert container.total_bytes == len(data)
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
        segments = Container.open(data[:length], NAME).segments()
        end = 0
        for segment in segments:
            assert segment.offset == end
            assert segment.check_ok is (True if segment.complete else None)
            end += segment.length_bytes
        assert end == len(data)
        assert sum(segment.found_bytes for segment in segments) == length


def test_segments_tell_which_one_is_damaged() -> None:
    data = bytearray(assemble(LOSSLESS, HOPS, PAYLOAD))
    start = len(LOSSLESS.pack())
    data[start + 10] ^= 1
    assert Container.open(bytes(data[:-1]), NAME).segments() == (
        SegmentInfo("header", 0, start, start, check_ok=True),
        SegmentInfo("hops", start, 42, 42, check_ok=False),
        SegmentInfo("last stage", start + 42, 101, 100, check_ok=None),
    )


@every_kind
def test_every_damaged_byte_is_detected(header: Header, hops: bytes, payload: bytes) -> None:
    data = assemble(header, hops, payload)
    for position in range(len(data)):
        for flip in (1, 0x10, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(BitstreamError, match=NAME):
                read_whole(bytes(damaged))


def read_whole(data: bytes) -> None:
    container = Container.open(data, NAME)
    container.hops()
    container.last_stage()


@every_kind
def test_bytes_after_the_end_are_refused(header: Header, hops: bytes, payload: bytes) -> None:
    with pytest.raises(BitstreamError, match="found 1 more"):
        Container.open(assemble(header, hops, payload) + b"\0", NAME)


def test_a_damaged_payload_leaves_the_hops() -> None:
    data = bytearray(assemble(LOSSLESS, HOPS, PAYLOAD))
    data[-1] ^= 1
    container = Container.open(bytes(data), NAME)
    assert container.hops() == Segment(HOPS, complete=True)
    with pytest.raises(ChecksumError, match="damaged last stage"):
        container.last_stage()


@pytest.mark.parametrize(
    ("header", "hops", "payload"), [(LOSSY, HOPS, b""), (STORED, b"", PAYLOAD)]
)
def test_the_first_check_covers_the_header(header: Header, hops: bytes, payload: bytes) -> None:
    data = assemble(header, hops, payload)
    wider = Header(
        header.width + 1,
        header.width + 1,
        3,
        model_id=header.model_id,
        last_stage=header.last_stage,
        final_step=header.final_step,
        hop_bytes=len(hops),
        payload_bytes=len(payload),
    ).pack()
    container = Container.open(wider + data[len(wider) :], NAME)
    assert [segment.check_ok for segment in container.segments()] == [True, False]


def test_assemble_refuses_segments_that_the_header_excludes() -> None:
    with pytest.raises(ValueError, match="no payload in a lossy file"):
        assemble(LOSSY, HOPS, PAYLOAD)
    with pytest.raises(ValueError, match="no hops"):
        assemble(STORED, HOPS, PAYLOAD)
