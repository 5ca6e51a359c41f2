"""Fields to bits and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcodec.bits import BitReader, BitWriter
from diffcodec.errors import TruncatedStreamError

FIELDS = st.lists(
    st.integers(0, 63).flatmap(
        lambda width: st.tuples(st.integers(0, (1 << width) - 1 if width else 0), st.just(width))
    )
)


@given(FIELDS, st.lists(st.integers(-20, 20)))
def test_reading_restores_what_was_written(
    fields: list[tuple[int, int]], signed: list[int]
) -> None:
    writer = BitWriter()
    for value, width in fields:
        writer.write(value, width)
    for value in signed:
        writer.write_unary(value)
    data = writer.to_bytes()
    assert len(data) == -(-writer.bit_length // 8)
    reader = BitReader(data)
    assert [reader.read(width) for _, width in fields] == [value for value, _ in fields]
    assert [reader.read_unary(40) for _ in signed] == signed
    assert reader.position == writer.bit_length
    assert reader.remaining == 8 * len(data) - writer.bit_length


def test_bits_are_most_significant_first() -> None:
    writer = BitWriter()
    writer.write_array([[0b101, 0b001], [0b110, 0b010]], width=3)
    assert writer.bit_length == 12
    assert writer.to_bytes() == bytes([0b10100111, 0b00100000])
    writer.write(0b1111, width=4)
    assert writer.to_bytes() == bytes([0b10100111, 0b00101111])


@pytest.mark.parametrize(("value", "code"), [(0, "0"), (-1, "10"), (1, "110"), (-2, "1110")])
def test_unary_codes(value: int, code: str) -> None:
    writer = BitWriter()
    writer.write_unary(value)
    assert writer.bit_length == len(code)
    assert writer.to_bytes()[0] == int(code.ljust(8, "0"), 2)


def test_of_a_unary_number_too_large_no_more_is_read_than_tells_so() -> None:
    reader = BitReader(bytes.fromhex("fffe"))
    assert (reader.read_unary(2), reader.position) == (-3, 5)
    # 15 ones are −8: as large as may be, and one more than that.
    assert BitReader(bytes.fromhex("fffe")).read_unary(8) == -8
    assert BitReader(bytes.fromhex("fffe")).read_unary(7) == -8
    # Without an end it says that it is too large, not that the file ends.
    assert BitReader(bytes(3 * [255])).read_unary(11) == -12
    with pytest.raises(TruncatedStreamError):
        BitReader(bytes(3 * [255])).read_unary(12)


def test_a_writer_takes_the_bits_of_another() -> None:
    first, second = BitWriter(), BitWriter()
    first.write(1, 3)
    second.write(5, 4)
    first.write_bits(second)
    assert BitReader(first.to_bytes()).read(7) == 0b0010101


def test_what_is_skipped_is_not_read() -> None:
    reader = BitReader(b"\x0f")
    reader.skip(4)
    assert (reader.position, reader.remaining, reader.read(4)) == (4, 4, 15)


def test_a_read_past_the_end_moves_nothing() -> None:
    reader = BitReader(b"\xff")
    assert reader.read(6) == 63
    with pytest.raises(TruncatedStreamError, match="found 2"):
        reader.read_array(1, 3)
    with pytest.raises(TruncatedStreamError, match="unary"):
        reader.read_unary(5)
    with pytest.raises(TruncatedStreamError, match="found 2"):
        reader.skip(3)
    assert reader.position == 6
    assert reader.read(2) == 3
    with pytest.raises(TruncatedStreamError):
        BitReader(b"").read(1)


@pytest.mark.parametrize(("value", "width"), [(8, 3), (-1, 5), (1, 0), (1, 64)])
def test_what_does_not_fit_is_refused(value: int, width: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        BitWriter().write(value, width)
