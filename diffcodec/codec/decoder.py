"""The decoder: a stream, or any prefix of one, to successively finer images."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitReader
from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import LastStage
from diffcodec.bitstream.stored import unpack_pixels
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.pixels import PixelStage
from diffcodec.codec.plan import PlanConfig, hop_stream_bits
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
        exact_values: how many of the pixels' values the last stage has told.
        exact: whether the pixels are the original's.
        truncated: the file ends here, before its own end.
    """

    step: int
    stream_bytes: int
    pixels: NDArray[np.uint8]
    packets: int = 0
    exact_values: int = 0
    exact: bool = False
    truncated: bool = False

    @property
    def place(self) -> str:
        """How far it got, for messages: ``packet 40 at step 240, 128 of 3072 values exact``."""
        told = f", {self.exact_values} of {self.pixels.size} values exact"
        return f"packet {self.packets} at step {self.step}{told if self.exact_values else ''}"


def decode_frames(
    container: Container,
    model: CodecModel | None,
    *,
    stop_at_step: int = 0,
    every: bool = True,
    shown: Collection[int] | None = None,
) -> Iterator[Frame]:
    """x̂_0 before the first packet, after each packet, and in a lossless file after each run.

    A run is a channel of a group of the last stage's pixels. The last frame of a whole lossless
    file is exact.

    Args:
        model: the model that the header names; not needed for stored pixels.
        stop_at_step: packets that end below this step are left, and, unless it is 0, the pixels.
        every: False gives the last frame alone, without evaluating the network for the others.
        shown: numbers of packets, counted from 1, after which a frame is wanted; after others there
            is one only where it costs no evaluation of its own, before a hop. None wants all.

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
    yield from _decode_hops(container, model, stop_at_step, every, shown)


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
        bits = hop_stream_bits(plan, layout.count, BitReader(container.hops().data))
    except BitstreamError:
        # Decoding comes to the same place, and says what is wrong after the image before it.
        return replace(container, hop_bytes=None)
    return container.with_hop_bytes(-(-bits // 8))


def _decode_hops(
    container: Container,
    model: CodecModel,
    stop_at_step: int,
    every: bool,
    shown: Collection[int] | None,
) -> Iterator[Frame]:
    container = find_hops_end(container, model)
    header, hops = container.header, container.hops()
    layout = TileLayout(header.height, header.width, header.channels, model.tile_side)
    config = PlanConfig(header.growth_index, header.parts, header.channel_code)
    try:
        process = ReverseProcess(model, layout, config, header.final_step)
    except BitstreamError as error:
        raise BitstreamError(f"{container.name}: {error}") from error
    reader = BitReader(hops.data)
    header_bytes, told_bits, packets = len(container.header_bytes), 0, 0

    def frame(truncated: bool = False, estimate: PixelEstimate | None = None) -> Frame:
        stream_bytes = header_bytes + -(-told_bits // 8)
        x_hat = (estimate or process.estimate()).mean
        pixels = signal_to_levels(layout.join(x_hat))
        return Frame(process.plan.t, stream_bytes, pixels, packets, truncated=truncated)

    while not process.plan.finished:
        try:
            packet = process.plan.packet(reader.read_unary() if process.plan.is_due else 0)
            if packet.s < stop_at_step:
                yield frame()
                return
            process.require(packet, reader)
        except TruncatedStreamError:
            yield frame(truncated=True)
            return
        except BitstreamError as error:
            yield frame()
            raise BitstreamError(f"{container.name}: {error}") from error
        if every and (shown is None or packet.begins_hop or packets in shown):
            yield frame()
        process.hear(packet, reader)
        packets += 1
        told_bits = reader.position
    wants_pixels = header.last_stage is LastStage.GAUSSIAN and stop_at_step == 0
    if not wants_pixels:
        yield frame(truncated=not hops.complete)
        return
    first = process.estimate()
    best = hop_frame = frame(estimate=first)
    try:
        payload, length = container.last_stage(), container.payload_bytes
        if length is not None and (payload.complete or payload.data):
            start = len(container.content) - len(payload.data)
            stage = PixelStage(model, layout, process.z, process.plan.t, first)
            for finer in stage.decode(payload.data, length, container.name, every=every):
                if every:
                    yield best
                best = replace(
                    hop_frame,
                    stream_bytes=start + finer.payload_bytes,
                    pixels=finer.pixels,
                    exact_values=finer.exact_values,
                )
    except BitstreamError:
        # What the hops gave is whole and nearly the image: give it before the complaint.
        yield hop_frame
        raise
    yield replace(best, step=0, exact=True) if payload.complete else replace(best, truncated=True)


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
