"""Segments and their checks (docs/format.md, Segments).

A file is its header, then the hop stream, then the last stage. Where the hops end follows from
their plan, which is the decoder's to walk; what a prefix needs comes first, and no lengths before
it:

>>> from diffcodec.bitstream.header import Header, LastStage
>>> header = Header(32, 32, 3, model_id=b"ab", last_stage=LastStage.GAUSSIAN)
>>> data = assemble(header, b"hops", b"pixels")
>>> container = Container.open(data, "example.dfc")
>>> container.hops().complete, container.total_bytes
(False, None)
>>> container = container.with_hop_bytes(4)
>>> container.hops(), container.last_stage()
(Segment(data=b'hops', complete=True), Segment(data=b'pixels', complete=True))
>>> Container.open(data[:-1], "cut.dfc").with_hop_bytes(4).last_stage()
Segment(data=b'pixel', complete=False)

Of a whole file the checks show it, too:

>>> Container.open(data, "example.dfc").by_its_checks().hops()
Segment(data=b'hops', complete=True)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from diffcodec.bitstream.crc import crc8, crc16, crc32
from diffcodec.bitstream.header import (
    LONGEST_VARINT,
    Header,
    LastStage,
    pack_varint,
    unpack_varint,
)
from diffcodec.errors import BitstreamError, ChecksumError, TruncatedStreamError
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

    Where hops end is known of the model's plan, or of a whole file by its checks
    (`Container.by_its_checks`). Elsewhere all that follows the header is listed as hops, and
    ``length_bytes`` and ``check_ok`` are ``None``; so they are of a last stage whose own length is
    cut off.
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
    """A segment's check: which CRC, of how many bytes."""

    crc: Callable[[bytes], int]
    size: int

    def of(self, covered: bytes) -> bytes:
        return self.crc(covered).to_bytes(self.size, "big")


_HOPS_CHECK = _Check(crc16, 2)
_PAYLOAD_CHECK = _Check(crc8, 1)
_STORED_CHECK = _Check(crc32, 4)


@dataclass(frozen=True)
class _Place:
    """Where in a file a segment, its data and its check begin.

    ``before`` and ``after`` are what the check covers besides the data.
    """

    name: str
    start: int
    data_start: int
    data_bytes: int
    check_start: int
    check: _Check
    before: bytes = b""
    after: bytes = b""

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def end(self) -> int:
        return max(self.data_start + self.data_bytes, self.check_start + self.check.size)


@dataclass(frozen=True)
class Container:
    """A file whose header has been read; ``content`` is all of it, the header included.

    ``hop_bytes`` is the length of the hop stream: 0 with stored pixels, else ``None`` until
    `with_hop_bytes` or `by_its_checks`.
    """

    header: Header
    header_bytes: bytes
    content: bytes
    name: str
    hop_bytes: int | None

    @staticmethod
    def open(data: bytes, name: str, pixel_limit: int | None = PIXEL_LIMIT) -> "Container":
        """Read the header and, of stored pixels, compare the length that it announces.

        Raises what :meth:`Header.unpack` raises, and :class:`BitstreamError` where stored pixels
        go on after their end. A file that ends early is legal: its segments tell.
        """
        header, length = Header.unpack(data, name, pixel_limit)
        hop_bytes = 0 if header.last_stage is LastStage.STORED else None
        container = Container(header, data[:length], data, name, hop_bytes)
        container._refuse_excess()
        return container

    def with_hop_bytes(self, hop_bytes: int) -> "Container":
        """The file, its hops found to take ``hop_bytes``.

        Raises :class:`BitstreamError` where the file goes on after its end, and
        :class:`ValueError` for stored pixels.
        """
        if self.header.last_stage is LastStage.STORED:
            raise ValueError(f"{self.name} has stored pixels and no hops")
        container = replace(self, hop_bytes=hop_bytes)
        # Behind hops that disagree with their check no length of a payload is to be believed.
        if self.header.last_stage is LastStage.NONE or container._agrees(container._places[0]):
            container._refuse_excess()
        return container

    def by_its_checks(self) -> "Container":
        """The file with the length of its hops where its own checks show it, else as it is.

        For who has no model to walk the plan with. A lossy file's hops end before its last bytes
        if those are the check of all before them, which of cut or damaged files one in 65536
        passes for; a lossless file's where a payload's length follows that is the rest's, and a
        check that agrees.
        """
        if self.hop_bytes is not None:
            return self
        rest = self._after_header
        lossy = self.header.last_stage is LastStage.NONE
        for end in [len(rest) - _HOPS_CHECK.size] if lossy else _ends_by_payload_length(rest):
            found = replace(self, hop_bytes=end)
            if end >= 0 and found._agrees(found._places[0]):
                return found
        return self

    @property
    def total_bytes(self) -> int | None:
        """Length of the whole file; ``None`` while its hops' or its payload's is not known."""
        places = self._places
        count = 2 if self.header.last_stage is LastStage.GAUSSIAN else 1
        return places[-1].end if len(places) == count else None

    @property
    def payload_bytes(self) -> int | None:
        """Length of the whole last stage's payload; ``None`` while it is not known."""
        return None if self.total_bytes is None else self._places[-1].data_bytes

    @property
    def extent(self) -> str:
        """``90 of 100 bytes``, for messages; ``90 bytes`` while the whole length is not known."""
        total = self.total_bytes
        return f"{len(self.content)}{'' if total is None else f' of {total}'} bytes"

    def hops(self) -> Segment:
        """The hop stream; of a truncated file, as much of it as is there.

        While their length is not known, everything after the header, and not complete. Stored
        pixels have no hops: nothing, and complete. Raises :class:`ChecksumError` where the check
        disagrees.
        """
        if self.hop_bytes is None:
            return Segment(self._after_header, complete=False)
        if self.header.last_stage is LastStage.STORED:
            return Segment(b"", complete=True)
        return self._read(self._places[0])

    def last_stage(self) -> Segment:
        """The last stage's payload; of a truncated file, as much of it as is there.

        Nothing, and not complete, while the hops' length is not known or where its own is cut off.
        Raises :class:`ChecksumError` where the check disagrees and :class:`ValueError` for a lossy
        file, which has no last stage.
        """
        if self.header.last_stage is LastStage.NONE:
            raise ValueError(f"{self.name} has no last stage")
        if self.total_bytes is None:
            return Segment(b"", complete=False)
        return self._read(self._places[-1])

    def segments(self) -> tuple[SegmentInfo, ...]:
        """Header, hop stream and last stage as far as the file has them, in its order.

        A segment's place is its number, by which errors and listings call it. While the hops'
        length is not known, `by_its_checks` is asked for it.

        Nothing is raised for a damaged segment: ``check_ok`` tells.
        """
        length, whole = len(self.header_bytes), len(self.content)
        # A header whose check disagreed would not have been opened.
        listed = [SegmentInfo("header", 0, length, length, check_ok=True)]
        places = self.by_its_checks()._places
        for place in places:
            found = len(self.content[place.start : place.end])
            check_ok = self._agrees(place) if found == place.size else None
            listed.append(SegmentInfo(place.name, place.start, place.size, found, check_ok))
        if not places:
            listed.append(SegmentInfo("hops", length, None, whole - length, None))
        elif self.header.last_stage is LastStage.GAUSSIAN and len(places) == 1:
            end = places[0].end
            listed.append(SegmentInfo("last stage", end, None, max(0, whole - end), None))
        return tuple(listed)

    @property
    def _after_header(self) -> bytes:
        return self.content[len(self.header_bytes) :]

    @property
    def _places(self) -> tuple[_Place, ...]:
        """Of the segments after the header; none while the hops' length is not known."""
        header, start, size = self.header, len(self.header_bytes), self.hop_bytes
        if header.last_stage is LastStage.STORED:
            data_start = start + _STORED_CHECK.size
            size, check = header.payload_bytes, _STORED_CHECK
            # The check precedes the data, so that those of a cut file run to its end.
            name, covered = "stored pixels", self.header_bytes
            return (_Place(name, start, data_start, size, start, check, covered),)
        if size is None:
            return ()
        end = position = start + size
        length: int | None = None
        if header.last_stage is LastStage.GAUSSIAN:
            try:
                length, position = unpack_varint(self.content, end, self.name)
            except TruncatedStreamError:
                # What is there of it is not the check, which is cut off with it.
                position = max(end, len(self.content))
            except BitstreamError:
                # No length of an encoder's: the check cannot agree, wherever it is looked for.
                pass
        told, covered = self.content[end:position], self.header_bytes
        hops = _Place("hops", start, start, size, position, _HOPS_CHECK, covered, told)
        if length is None:
            return (hops,)
        data_start = hops.end + _PAYLOAD_CHECK.size
        return hops, _Place("last stage", hops.end, data_start, length, hops.end, _PAYLOAD_CHECK)

    def _refuse_excess(self) -> None:
        total = self.total_bytes
        if total is not None and (excess := len(self.content) - total) > 0:
            raise BitstreamError(
                f"{self.name}: expected the file to end at {total} bytes, found {excess} more"
            )

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
        return place.check.of(place.before + self._data(place) + place.after)

    def _agrees(self, place: _Place) -> bool:
        return self._expected(place) == self._found(place)


def assemble(header: Header, hops: bytes, payload: bytes = b"") -> bytes:
    """A whole file; the length that a header of stored pixels tells is set to that of ``payload``.

    Raises :class:`ValueError` for a payload in a lossy file and for hops with stored pixels.
    """
    if header.last_stage is LastStage.STORED:
        if hops:
            raise ValueError(f"expected no hops with stored pixels, found {len(hops)} bytes")
        packed = replace(header, payload_bytes=len(payload)).pack()
        return packed + _STORED_CHECK.of(packed + payload) + payload
    packed = header.pack() + hops
    if header.last_stage is LastStage.NONE:
        if payload:
            raise ValueError(f"expected no payload in a lossy file, found {len(payload)} bytes")
        return packed + _HOPS_CHECK.of(packed)
    packed += pack_varint(len(payload))
    return packed + _HOPS_CHECK.of(packed) + _PAYLOAD_CHECK.of(payload) + payload


def _ends_by_payload_length(rest: bytes) -> Iterator[int]:
    """Where in a whole lossless file, without its header, hops may end.

    There stands a payload's length that is that of what follows, less the two checks between.
    """
    for size in range(1, LONGEST_VARINT + 1):
        behind = len(rest) - _HOPS_CHECK.size - size - _PAYLOAD_CHECK.size
        smallest = 0 if size == 1 else 1 << 7 * (size - 1)
        for length in range(smallest, min(behind, (1 << 7 * size) - 1) + 1):
            end = behind - length
            if rest[end : end + size] == pack_varint(length):
                yield end
