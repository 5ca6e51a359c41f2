"""Where a file's bits went: its packets read once more beside the image that they lead to."""

from dataclasses import dataclass

from diffcodec.bits import BitReader
from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import LastStage
from diffcodec.codec.decoder import Frame, decode_frames, find_hops_end
from diffcodec.codec.model import CodecModel
from diffcodec.codec.pixels import PixelStage
from diffcodec.codec.plan import PlanConfig
from diffcodec.codec.reverse import ReverseProcess
from diffcodec.codec.tiles import TileLayout
from diffcodec.diffusion.process import hop_kl_nats
from diffcodec.errors import BitstreamError
from diffcodec.units import nats_to_bits


@dataclass(frozen=True)
class HopAccount:
    """One hop: the packets between two evaluations of the network.

    Attributes:
        t, s: steps of the grid where it begins and ends.
        packets: how many.
        correction_bits: what tells the error.
        code_bits: the channel code's, of all vectors.
        kl_bits: KL of its packets: of the image itself where the file tells it exactly, else
            reckoned with the error that the file tells.
    """

    t: int
    s: int
    packets: int
    correction_bits: int
    code_bits: int
    kl_bits: float


@dataclass(frozen=True)
class FileAccount:
    """Every bit of a whole file; the parts sum to its length.

    Attributes:
        header_bits: the header with its check.
        hops: in order.
        padding_bits: what fills the hop stream's last byte.
        check_bits: the checks of the segments behind the header, and the payload's length.
        last_stage_bits: the payload; 0 where there is none.
        last_stage_ideal_bits: Σ −log2 p of the pixels under the tables that coded them.
        exact: whether the hops' KL is that of the image itself.
    """

    header_bits: int
    hops: tuple[HopAccount, ...]
    padding_bits: int
    check_bits: int
    last_stage_bits: int
    last_stage_ideal_bits: float
    exact: bool


def account_for(container: Container, model: CodecModel) -> FileAccount:
    """Decode a whole file with hops and add up its bits.

    Raises:
        ValueError: the file holds stored pixels.
        BitstreamError: it is truncated, or what decoding it raises.
    """
    header = container.header
    if header.last_stage is LastStage.STORED:
        raise ValueError("stored pixels have no account")
    last = whole_image(container, model)
    layout = TileLayout(header.height, header.width, header.channels, model.tile_side)
    signal = layout.split(last.pixels) if last.exact else None
    config = PlanConfig(header.growth_index, header.parts, header.channel_code)
    process = ReverseProcess(model, layout, config, header.final_step)
    container = find_hops_end(container, model)
    hops = container.hops()
    reader = BitReader(hops.data)
    accounts: list[HopAccount] = []
    while not process.plan.finished:
        before = reader.position
        packet = process.plan.read_packet(reader)
        correction_bits = reader.position - before
        error = packet.error * layout.image_dimensions
        if signal is not None:
            error = process.squared_error(signal)
        kl_bits = nats_to_bits(hop_kl_nats(model.schedule, packet.s, packet.t, error))
        process.hear(packet, reader)
        hop = HopAccount(packet.t, packet.s, 1, correction_bits, packet.bits, kl_bits)
        if not packet.begins_hop:
            hop = _joined(accounts.pop(), hop)
        accounts.append(hop)
    payload_bits, ideal_bits = 0, 0.0
    if signal is not None:
        payload = container.last_stage().data
        payload_bits = 8 * len(payload)
        stage = PixelStage(model, layout, process.z, process.plan.t)
        ideal_bits = stage.ideal_bits(payload, last.pixels)
    header_bits = 8 * len(container.header_bytes)
    hop_bits = 8 * len(hops.data)
    return FileAccount(
        header_bits=header_bits,
        hops=tuple(accounts),
        padding_bits=reader.remaining,
        check_bits=8 * len(container.content) - header_bits - hop_bits - payload_bits,
        last_stage_bits=payload_bits,
        last_stage_ideal_bits=ideal_bits,
        exact=signal is not None,
    )


def whole_image(container: Container, model: CodecModel | None) -> Frame:
    """What a whole file decodes to; stored pixels need no model.

    Raises:
        BitstreamError: it is truncated, or what decoding it raises.
    """
    *_, last = decode_frames(container, model, every=False)
    if last.truncated:
        raise BitstreamError(f"{container.name}: expected a whole file, found a truncated one")
    return last


def _joined(first: HopAccount, second: HopAccount) -> HopAccount:
    return HopAccount(
        t=first.t,
        s=second.s,
        packets=first.packets + second.packets,
        correction_bits=first.correction_bits + second.correction_bits,
        code_bits=first.code_bits + second.code_bits,
        kl_bits=first.kl_bits + second.kl_bits,
    )
