"""The decoder: a stream, or any prefix of one, to successively finer images."""

import copy
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitReader
from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import LastStage
from diffcodec.bitstream.stored import unpack_pixels
from diffcodec.codec.model import CodecModel
from diffcodec.codec.pixels import PixelsSoFar, PixelStage
from diffcodec.codec.plan import Packet, PlanConfig, hop_stream_bits
from diffcodec.codec.reverse import ReverseProcess, plan_of
from diffcodec.codec.tiles import TileLayout
from diffcodec.diffusion.process import signal_to_levels
from diffcodec.errors import BitstreamError, ModelMismatchError, TruncatedStreamError

STORED_FILL = 128


@dataclass(frozen=True, eq=False)
class Frame:
    """One image on the way.

    Attributes:
        step: the step t of the grid that it was estimated at, in the last stage the one that the
            hops end at; 0 for exact pixels.
        stream_bytes: length of the shortest prefix of the file that gives this image.
        pixels: uint8 [H, W, C].
        packets: whole packets that were decoded for it.
        partial: it knows a part of the packet after those, too, in which the file was cut.
        exact_values: how many of the pixels' values the last stage has told.
        exact: whether the pixels are the original's.
        truncated: the file ends here, before its own end.
    """

    step: int
    stream_bytes: int
    pixels: NDArray[np.uint8]
    packets: int = 0
    partial: bool = False
    exact_values: int = 0
    exact: bool = False
    truncated: bool = False

    @property
    def place(self) -> str:
        """How far it got, for messages: ``packet 40 at step 240, 128 of 3072 values exact``."""
        packet = f"packet {self.packets}{' and a part of the next' if self.partial else ''}"
        told = f", {self.exact_values} of {self.pixels.size} values exact"
        return f"{packet} at step {self.step}{told if self.exact_values else ''}"


def decode_frames(
    container: Container,
    model: CodecModel | None,
    *,
    stop_at_step: int = 0,
    every: bool = True,
    lengths: Collection[int] | None = None,
) -> Iterator[Frame]:
    """x̂_0 before the first packet, after each packet, and in a lossless file after each run.

    A run is a channel of a group of the last stage's pixels. The last frame of a whole lossless
    file is exact.

    Args:
        model: the model that the header names; not needed for stored pixels.
        stop_at_step: packets that end below this step are left, and, unless it is 0, the pixels.
        every: False gives the last frame alone, without evaluating the network for the others.
        lengths: of beginnings of the file, in bytes, whose images are wanted, with what they tell
            of the packet that they end in. Then there is a frame after a whole packet only before a
            hop, where it takes no evaluation of its own but those of windows over seams. None wants
            one after every whole packet.

    Raises:
        ModelMismatchError: the file was made with another model; raised before any frame.
        BitstreamError: a segment is damaged, the file goes on after its end, or the arithmetic
            differs from the encoder's. What could be decoded before it has been given.
    """
    if container.header.last_stage is LastStage.STORED:
        yield _stored_frame(container)
        return
    if model is None or container.header.model_id != model.model_id:
        found = "none" if model is None else model.model_id.hex()
        raise ModelMismatchError(
            f"{container.name}: expected the model {container.header.model_id.hex()} that it was "
            f"encoded with, found {found}"
        )
    yield from _decode(container, model, stop_at_step, every, lengths)


def find_hops_end(container: Container, model: CodecModel) -> Container:
    """The file with the length of its hops, which the plan tells.

    As it came where it holds stored pixels; with no such length where its data do not reach the
    plan's final step.

    Args:
        model: the model that the header names.

    Raises:
        BitstreamError: the file goes on after its end.
    """
    header = container.header
    if header.last_stage is LastStage.STORED:
        return container
    layout = TileLayout(header.height, header.width, header.channels, model.tile_side)
    config = PlanConfig(header.growth_index, header.parts, header.channel_code)
    try:
        plan = plan_of(model, layout, config, header.final_step)
        bits = hop_stream_bits(plan, BitReader(container.hops().data))
    except BitstreamError:
        # Decoding comes to the same place, and says what is wrong after the image before it.
        return replace(container, hop_bytes=None)
    return container.with_hop_bytes(-(-bits // 8))


def last_stage_of(container: Container, model: CodecModel) -> PixelStage:
    """The last stage of a whole lossless file before its first level, for who looks into it.

    Raises:
        BitstreamError: the hops are damaged.
    """
    container = find_hops_end(container, model)
    walk = _HopWalk(container, container.hops().data, model)
    deque(walk.frames(0, False, None), maxlen=0)
    return walk.last_stage()


def _decode(
    container: Container,
    model: CodecModel,
    stop_at_step: int,
    every: bool,
    lengths: Collection[int] | None,
) -> Iterator[Frame]:
    container = find_hops_end(container, model)
    header, hops = container.header, container.hops()
    try:
        walk = _HopWalk(container, hops.data, model)
    except BitstreamError as error:
        raise BitstreamError(f"{container.name}: {error}") from error
    yield from walk.frames(stop_at_step, every, lengths)
    if not walk.process.plan.finished:
        return
    if header.last_stage is not LastStage.GAUSSIAN or stop_at_step > 0:
        yield walk.frame(truncated=not hops.complete)
        return
    # The image of the hops alone, which costs an evaluation.
    best = walk.frame() if every else None
    try:
        payload, length = container.last_stage(), container.payload_bytes
        if length is not None and (payload.complete or payload.data):
            start = len(container.content) - len(payload.data)
            for finer in walk.last_stage().decode(
                payload.data, length, container.name, every=every
            ):
                if best is not None:
                    yield best
                best = walk.finer_frame(finer, start)
    except BitstreamError:
        # What the hops gave is whole and nearly the image: give it before the complaint.
        yield walk.frame()
        raise
    best = best or walk.frame()
    yield replace(best, step=0, exact=True) if payload.complete else replace(best, truncated=True)


class _HopWalk:
    """The hops of a file, packet by packet.

    Attributes:
        layout: the image's tiles.
        process: where the reverse process stands, after the last whole packet.
    """

    def __init__(self, container: Container, data: bytes, model: CodecModel) -> None:
        """Stand before the first packet of ``data``, the hop stream or its beginning.

        Raises:
            BitstreamError: the channel code is not one that this release knows.
        """
        header = container.header
        self.layout = TileLayout(header.height, header.width, header.channels, model.tile_side)
        config = PlanConfig(header.growth_index, header.parts, header.channel_code)
        self.process = ReverseProcess(model, self.layout, config, header.final_step)
        self._model, self._name = model, container.name
        self._before_hops = len(container.header_bytes)
        self._data_bytes, self._reader = len(data), BitReader(data)
        self._told_bytes, self._packets = 0, 0

    def frame(self, *, truncated: bool = False) -> Frame:
        """The image after the last whole packet."""
        return replace(self._frame_of(self.process, self._told_bytes), truncated=truncated)

    def last_stage(self) -> PixelStage:
        """Where the pixels begin."""
        return PixelStage(self._model, self.layout, self.process.z, self.process.plan.t)

    def finer_frame(self, finer: PixelsSoFar, start: int) -> Frame:
        """An image on the way through the last stage, whose payload begins at byte ``start``."""
        length, told = start + finer.payload_bytes, finer.exact_values
        return Frame(self.process.plan.t, length, finer.pixels, self._packets, exact_values=told)

    def frames(
        self, stop_at_step: int, every: bool, lengths: Collection[int] | None
    ) -> Iterator[Frame]:
        """Walk: the frames of `decode_frames` up to the end of the hops, but for the one there.

        A walk that ends before has given the last frame that there is.

        Raises:
            BitstreamError: a correction that no encoder makes; after the last frame.
        """
        plan, reader = self.process.plan, self._reader
        wanted = sorted(length - self._before_hops for length in lengths or ())
        while not plan.finished:
            try:
                packet = plan.read_packet(reader)
            except TruncatedStreamError:
                yield self.frame(truncated=True)
                return
            except BitstreamError as error:
                yield self.frame()
                raise BitstreamError(f"{self._name}: {error}") from error
            if packet.s < stop_at_step:
                yield self.frame()
                return
            whole = -(-(reader.position + packet.bits) // 8)
            inside = [n for n in wanted if self._told_bytes <= n < min(whole, self._data_bytes)]
            parts = [self._beginning(packet, n) for n in inside] if every else []
            if every and (lengths is None or packet.begins_hop or None in parts):
                yield self.frame()
            for part in dict.fromkeys(parts):
                if part is not None:
                    yield self._frame_within(part)
            # Before anything is made for the packet.
            if whole > self._data_bytes:
                part = self._beginning(packet, self._data_bytes)
                yield (
                    self.frame(truncated=True)
                    if part is None
                    else replace(self._frame_within(part), truncated=True)
                )
                return
            self.process.hear(packet, reader)
            self._told_bytes = -(-reader.position // 8)
            self._packets += 1

    def _beginning(self, packet: Packet, length: int) -> Packet | None:
        """What ``length`` bytes of the hops, too few for ``packet``, tell of it, as a packet.

        Nothing in the byte in which the packet before it ends: that byte gives that one's image.
        """
        if length <= self._told_bytes:
            return None
        return self.process.plan.beginning(packet, 8 * length - self._reader.position)

    def _frame_within(self, part: Packet) -> Frame:
        """The image after a packet's beginning; the walk stays before the packet."""
        process, reader = self.process.fork(), copy.copy(self._reader)
        process.hear(part, reader)
        return replace(self._frame_of(process, -(-reader.position // 8)), partial=True)

    def _frame_of(self, process: ReverseProcess, told_bytes: int) -> Frame:
        pixels = signal_to_levels(self.layout.join(process.shown()))
        return Frame(process.plan.t, self._before_hops + told_bytes, pixels, self._packets)


def _stored_frame(container: Container) -> Frame:
    """Deflated pixels; of a truncated file the first ones, the rest mid-gray."""
    header, payload = container.header, container.last_stage()
    values = unpack_pixels(payload, header.dimensions, container.name)
    filled = np.full(header.dimensions, STORED_FILL, dtype=np.uint8)
    filled[: len(values)] = values
    pixels = filled.reshape(header.height, header.width, header.channels)
    complete = payload.complete
    stream_bytes = len(container.content if complete else container.header_bytes)
    return Frame(0, stream_bytes, pixels, exact=complete, truncated=not complete)
