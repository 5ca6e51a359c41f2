"""Segments and their checks (docs/format.md, Segments).

A file is its header, then the hop stream, then the last stage. A lossless file's header tells both
lengths, so where it is cut short and where it is damaged shows without decoding it:

>>> from diffcodec.bitstream.header import Header, LastStage
>>> header = Header(32, 32, 3, model_id=b"ab", last_stage=LastStage.GAUSSIAN)
>>> data = assemble(header, b"hops", b"pixels")
>>> container = Container.open(data, "example.dfc")
>>> container.hops(), container.last_stage()
(Segment(data=b'hops', complete=True), Segment(data=b'pixels', complete=True))
>>> Container.open(data[:-1], "cut.dfc").last_stage()
Segment(data=b'pixel', complete=False)

Where the hops of a lossy file end follows from their plan, which is the decoder's to walk:

>>> data = assemble(Header(32, 32, 3, model_id=b"ab"), b"hops")
>>> container = Container.open(data, "lossy.dfc")
>>> len(container.hops().data), container.hops().complete, container.total_bytes
(6, False, None)
>>> container.with_hop_bytes(4).hops()
Segment(data=b'hops', complete=True)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from diffcodec.bitstream.crc import crc8, crc16, crc32
from diffcodec.bitstream.header import Header, LastStage
from diffcodec.errors import BitstreamError, ChecksumError
from diffcodec.limits import PIXEL_LIMIT

LAST_STAGE_SEGMENT = 2
"""Number of the last stage in a file with hops: segments are counted from 0, the header."""


@dataclass(frozen=True)
class Segment:
    """A segment's bytes without its check; ``complete`` where both are whole and agree.

    Otherwise the file is cut short, and the bytes are a prefix of the segment's, unchecked.
    """

    data: bytes
    complete: bool


@dataclass(frozen=True)
class SegmentInfo:
    """What a listing says of a segment. The segments of a whole file follow without gaps.

    ``offset`` is its first byte's in the file, ``length_bytes`` its whole length and
    ``found_bytes`` the bytes of it that are there, all with its check; ``check_ok`` is ``None``
    where the file is cut short and nothing can be checked.

    Of a lossy file's hops the end is not known here. Where the file's last bytes are the check of
    all before them the hops are listed as whole, which of cut or damaged ones one in 65536 is;
    elsewhere ``length_bytes`` and ``check_ok`` are ``None``.
    """

    name: str
    offset: int
    length_bytes: int | None
    found_bytes: int
    check_ok: bool | None

    @property
    def complete(self) -> bool:
        """Whether the segment and its check are wholly there."""
        return self.found_bytes == self.length_bytes


@dataclass(frozen=True)
class _Check:
    """A segment's check: which CRC, of how many bytes, and whether the header is covered too."""

    crc: Callable[[bytes], int]
    size: int
    covers_header: bool

    def of(self, header: bytes, data: bytes) -> bytes:
        covered = header + data if self.covers_header else data
        return self.crc(covered).to_bytes(self.size, "big")


_HOPS_CHECK = _Check(crc16, 2, covers_header=True)
_PAYLOAD_CHECK = _Check(crc8, 1, covers_header=False)
# Stored pixels have no hop stream whose check would cover the header.
_STORED_CHECK = _Check(crc32, 4, covers_header=True)


@dataclass(frozen=True)
class _Place:
    """Where in a file a segment, its data and its check begin."""

    name: str
    start: int
    data_start: int
    data_bytes: int
    check_start: int
    check: _Check

    @property
    def size(self) -> int:
        return self.data_bytes + self.check.size

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Container:
    """A file whose header has been read; ``content`` is all of it, the header included.

    ``hop_bytes`` is the length of the hop stream, ``None`` in a lossy file until `with_hop_bytes`.
    """

    header: Header
    header_bytes: bytes
    content: bytes
    name: str
    hop_bytes: int | None

    @staticmethod
    def open(data: bytes, name: str, pixel_limit: int | None = PIXEL_LIMIT) -> "Container":
        """Read the header and compare the lengths that it announces, if any, with the file's.

        Raises what :meth:`Header.unpack` raises, and :class:`BitstreamError` where the file goes
        on after its end. A file that ends early is legal: its segments tell.
        """
        header, length = Header.unpack(data, name, pixel_limit)
        hop_bytes = None if header.last_stage is LastStage.NONE else header.hop_bytes
        container = Container(header, data[:length], data, name, hop_bytes)
        container._refuse_excess()
        return container

    def with_hop_bytes(self, hop_bytes: int) -> "Container":
        """A lossy file whose hops are found to take ``hop_bytes``.

        Raises :class:`BitstreamError` where the file goes on after their check, and
        :class:`ValueError` where the header tells their length.
        """
        if self.header.last_stage is not LastStage.NONE:
            raise ValueError(f"the header of {self.name} tells the length of its hops")
        container = replace(self, hop_bytes=hop_bytes)
        container._refuse_excess()
        return container

    @property
    def total_bytes(self) -> int | None:
        """Length of the whole file; ``None`` while its hops' is not known."""
        return self._places[-1].end if self._places else None

    @property
    def extent(self) -> str:
        """``90 of 100 bytes``, for messages; ``90 bytes`` while the whole length is not known."""
        total = self.total_bytes
        return f"{len(self.content)}{'' if total is None else f' of {total}'} bytes"

    def hops(self) -> Segment:
        """The hop stream; of a truncated file, as much of it as is there.

        Of a lossy file, until `with_hop_bytes`, everything after the header, with the check if it
        is there, and not complete. Stored pixels have no hops: nothing, and complete. Raises
        :class:`ChecksumError` where the check disagrees.
        """
        if self.hop_bytes is None:
            return Segment(self._after_header, complete=False)
        if self.header.last_stage is LastStage.STORED:
            return Segment(b"", complete=True)
        return self._read(self._places[0])

    def last_stage(self) -> Segment:
        """The last stage's payload; of a truncated file, as much of it as is there.

        Raises :class:`ChecksumError` where the check disagrees and :class:`ValueError` for a lossy
        file, which has no last stage.
        """
        if self.header.last_stage is LastStage.NONE:
            raise ValueError(f"{self.name} has no last stage")
        return self._read(self._places[-1])

    def segments(self) -> tuple[SegmentInfo, ...]:
        """Header, hop stream and last stage as far as the file has them, in its order.

        A segment's place is its number, by which errors and listings call it.

        Nothing is raised for a damaged segment: ``check_ok`` tells.
        """
        length = len(self.header_bytes)
        # A header whose check disagreed would not have been opened.
        listed = [SegmentInfo("header", 0, length, length, check_ok=True)]
        if self.hop_bytes is None:
            listed.append(self._hops_to_the_end())
        for place in self._places:
            found = len(self.content[place.start : place.end])
            check_ok = self._expected(place) == self._found(place) if found == place.size else None
            listed.append(SegmentInfo(place.name, place.start, place.size, found, check_ok))
        return tuple(listed)

    @property
    def _after_header(self) -> bytes:
        return self.content[len(self.header_bytes) :]

    @property
    def _places(self) -> tuple[_Place, ...]:
        """Of the segments after the header; none while the hops' length is not known."""
        header, start, size = self.header, len(self.header_bytes), self.hop_bytes
        if header.last_stage is LastStage.STORED:
            return (_after_check("stored pixels", start, header.payload_bytes, _STORED_CHECK),)
        if size is None:
            return ()
        hops = _Place("hops", start, start, size, start + size, _HOPS_CHECK)
        if header.last_stage is LastStage.NONE:
            return (hops,)
        return hops, _after_check("last stage", hops.end, header.payload_bytes, _PAYLOAD_CHECK)

    def _refuse_excess(self) -> None:
        total = self.total_bytes
        if total is not None and (excess := len(self.content) - total) > 0:
            raise BitstreamError(
                f"{self.name}: expected the file to end at {total} bytes, found {excess} more"
            )

    def _hops_to_the_end(self) -> SegmentInfo:
        """A lossy file's hops, which are whole if the file's last bytes are their check."""
        rest, size = self._after_header, _HOPS_CHECK.size
        expected = _HOPS_CHECK.of(self.header_bytes, rest[:-size])
        whole = len(rest) >= size and rest[-size:] == expected
        length = len(rest) if whole else None
        return SegmentInfo("hops", len(self.header_bytes), length, len(rest), whole or None)

    def _read(self, place: _Place) -> Segment:
        data = self._data(place)
        if len(self.content) < place.end:
            return Segment(data, complete=False)
        expected, found = self._expected(place), self._found(place)
        if expected != found:
            raise ChecksumError(
                f"{self.name}: damaged {place.name}: expected the check 0x{expected.hex()}, found "
                f"0x{found.hex()}"
            )
        return Segment(data, complete=True)

    def _data(self, place: _Place) -> bytes:
        return self.content[place.data_start : place.data_start + place.data_bytes]

    def _found(self, place: _Place) -> bytes:
        return self.content[place.check_start : place.check_start + place.check.size]

    def _expected(self, place: _Place) -> bytes:
        return place.check.of(self.header_bytes, self._data(place))


def assemble(header: Header, hops: bytes, payload: bytes = b"") -> bytes:
    """A whole file; the lengths that its header tells are set to those of ``hops`` and ``payload``.

    Raises :class:`ValueError` for a payload in a lossy file and for hops with stored pixels.
    """
    told = 0 if header.last_stage is LastStage.NONE else len(hops)
    header = replace(header, hop_bytes=told, payload_bytes=len(payload))
    packed = header.pack()
    if header.last_stage is LastStage.STORED:
        return packed + _STORED_CHECK.of(packed, payload) + payload
    packed_hops = packed + hops + _HOPS_CHECK.of(packed, hops)
    if header.last_stage is LastStage.NONE:
        return packed_hops
    return packed_hops + _PAYLOAD_CHECK.of(packed, payload) + payload


def _after_check(name: str, start: int, data_bytes: int, check: _Check) -> _Place:
    """A segment whose check precedes its data, so that the data of a cut file run to its end."""
    return _Place(name, start, start + check.size, data_bytes, start, check)
