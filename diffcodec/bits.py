"""Bits to bytes and back, most significant bit first."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffcodec.errors import TruncatedStreamError

_MAX_WIDTH = 63


def _check_width(width: int) -> None:
    if not 0 <= width <= _MAX_WIDTH:
        raise ValueError(f"a field is 0 to {_MAX_WIDTH} bits wide, not {width}")


class BitWriter:
    """Appends fields to a growing string of bits; the inverse of ``BitReader``.

    >>> writer = BitWriter()
    >>> writer.write(5, width=3)
    >>> writer.write_unary(-1)
    >>> writer.bit_length, writer.to_bytes().hex()
    (5, 'b0')
    """

    def __init__(self) -> None:
        self._pieces: list[NDArray[np.uint8]] = []
        self._bit_length = 0

    @property
    def bit_length(self) -> int:
        """Bits written so far."""
        return self._bit_length

    def _append(self, bits: NDArray[np.uint8]) -> None:
        self._pieces.append(bits)
        self._bit_length += len(bits)

    def write(self, value: int, width: int) -> None:
        """``value`` as ``width`` bits; ValueError if it does not fit."""
        self.write_array([value], width)

    def write_array(self, values: ArrayLike, width: int) -> None:
        """Each of ``values``, in C order, as ``width`` bits; ValueError if one does not fit."""
        _check_width(width)
        fields = np.asarray(values, dtype=np.int64).ravel()
        if fields.size and (fields.min() < 0 or int(fields.max()) >> width):
            raise ValueError(f"a value from {fields.min()} to {fields.max()} exceeds {width} bits")
        shifts = np.arange(width - 1, -1, -1, dtype=np.int64)
        self._append(((fields[:, None] >> shifts) & 1).astype(np.uint8).ravel())

    def write_bits(self, other: "BitWriter") -> None:
        """All bits of another writer."""
        for piece in other._pieces:
            self._append(piece)

    def write_unary(self, value: int) -> None:
        """A small signed integer: 0 → 0, −1 → 10, +1 → 110, −2 → 1110 and so on."""
        ones = 2 * value if value >= 0 else -2 * value - 1
        bits = np.ones(ones + 1, dtype=np.uint8)
        bits[-1] = 0
        self._append(bits)

    def to_bytes(self) -> bytes:
        """The bits, padded with zeros to a whole byte."""
        if not self._pieces:
            return b""
        self._pieces = [np.concatenate(self._pieces)]
        return np.packbits(self._pieces[0]).tobytes()


class BitReader:
    """Reads back what a ``BitWriter`` wrote, from a whole or a truncated string of bytes.

    A read past the end raises TruncatedStreamError and leaves the position where it was.

    >>> reader = BitReader(bytes.fromhex("b0"))
    >>> reader.read(3), reader.read_unary(8), reader.position, reader.remaining
    (5, -1, 5, 3)
    """

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
        self._position = 0

    @property
    def position(self) -> int:
        """Bits read so far."""
        return self._position

    @property
    def remaining(self) -> int:
        """Bits not yet read, the padding of the last byte among them."""
        return len(self._bits) - self._position

    def require(self, bits: int) -> None:
        """Raise TruncatedStreamError unless ``bits`` more can be read."""
        if bits > self.remaining:
            raise TruncatedStreamError(
                f"expected {bits} bits at bit {self._position}, found {self.remaining}"
            )

    def skip(self, bits: int) -> None:
        """Go on after ``bits`` more."""
        self.require(bits)
        self._position += bits

    def read(self, width: int) -> int:
        """An unsigned integer of ``width`` bits."""
        return int(self.read_array(1, width)[0])

    def read_array(self, count: int, width: int) -> NDArray[np.int64]:
        """``count`` unsigned integers of ``width`` bits each: int64[count]."""
        _check_width(width)
        self.require(count * width)
        end = self._position + count * width
        fields = self._bits[self._position : end].reshape(count, width)
        values = np.zeros(count, dtype=np.int64)
        for column in range(width):
            values <<= 1
            values |= fields[:, column]
        self._position = end
        return values

    def read_unary(self, largest: int) -> int:
        """A small signed integer, the inverse of ``BitWriter.write_unary``.

        Args:
            largest: the largest magnitude that the caller takes. Of a number beyond it no more is
                read than tells so, and it is given as −``largest`` − 1.
        """
        most = 2 * largest + 1
        field = self._bits[self._position : self._position + most]
        zeros = np.flatnonzero(field == 0)
        if not len(zeros) and len(field) < most:
            raise TruncatedStreamError(
                f"expected the end of a unary number at bit {self._position}, found the file's end"
            )
        ones = int(zeros[0]) if len(zeros) else most
        self._position += min(ones + 1, most)
        return -(ones + 1) // 2 if ones % 2 else ones // 2
