"""The encoder: an image to a stream, in closed loop with the decoder it imagines."""

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitWriter
from diffcodec.bitstream.container import assemble
from diffcodec.bitstream.header import Header, LastStage
from diffcodec.bitstream.stored import pack_pixels
from diffcodec.codec.effort import DEFAULT_EFFORT, Effort, effort_level
from diffcodec.codec.model import CodecModel
from diffcodec.codec.pixels import PixelStage
from diffcodec.codec.plan import Packet, PlanConfig
from diffcodec.codec.reverse import ReverseProcess
from diffcodec.codec.tiles import TileLayout
from diffcodec.diffusion.process import hop_kl_nats, signal_to_levels
from diffcodec.errors import BudgetError
from diffcodec.units import bits_per_dimension, nats_to_bits

Float64 = NDArray[np.float64]

HANDOVER_GAMMA = -7.8


@dataclass(frozen=True)
class EncoderSettings:
    """How to encode.

    Attributes:
        plan: growth of the hops, parts, channel code.
        bpd: a budget in bits/dim for the whole file, or None for a lossless file.
        handover_gamma: noise level at which a lossless file's pixels are coded.
        groups: groups of pixels in the last stage, held at what the model can do.
        trace: measure the RMSE for the ledger: after every packet, for an evaluation each; of
            several windows, which take up to four, where hops begin and at the end.
    """

    plan: PlanConfig = effort_level(DEFAULT_EFFORT).plan
    bpd: float | None = None
    handover_gamma: float = HANDOVER_GAMMA
    groups: int = effort_level(DEFAULT_EFFORT).groups
    trace: bool = False

    @staticmethod
    def for_effort(effort: Effort, **others: Any) -> "EncoderSettings":
        """The settings that an effort chooses, and ``others``."""
        return EncoderSettings(plan=effort.plan, groups=effort.groups, **others)


@dataclass(frozen=True)
class LedgerEntry:
    """One packet's account.

    Attributes:
        t, s: steps of the grid.
        kl_bits: KL(q(z_s | z_t, x) ‖ p(z_s | z_t)) for this image.
        paid_bits: what the packet takes in the file, its plan correction included.
        cumulative_bpd: size of a file cut after this packet, header included, over H·W·C.
        rmse: root mean square error of the decoded image there, 0–255 scale; None if not traced.
    """

    t: int
    s: int
    kl_bits: float
    paid_bits: int
    cumulative_bpd: float
    rmse: float | None


@dataclass(frozen=True)
class Encoded:
    """A stream and its account.

    Attributes:
        data: the file.
        header: what its header says.
        ledger: one entry a packet, in order; empty for stored pixels.
        payload_bytes: length of the last stage's payload; 0 where there is none.
        last_stage_bits: its ideal length; 0 where there is none and for stored pixels.
        evaluations: evaluations of the network that a decoder of the whole file needs.
    """

    data: bytes
    header: Header
    ledger: tuple[LedgerEntry, ...]
    payload_bytes: int
    last_stage_bits: float
    evaluations: int

    @property
    def bpd(self) -> float:
        """Bits per dimension, every byte of the file counted."""
        return bits_per_dimension(8.0 * len(self.data), self.header.dimensions)


def encode_image(
    pixels: NDArray[np.uint8],
    model: CodecModel,
    settings: EncoderSettings | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Encoded:
    """Encode ``pixels``, uint8 [H, W, C] with C = 1 or 3.

    A lossless file that would be larger than the deflated pixels holds those instead. A budget that
    the lossless file fits gives the lossless file.

    Args:
        on_step: called with the step that each packet has reached, for a progress display.

    Raises:
        BudgetError: the budget is smaller than a file without packets.
    """
    settings = settings or EncoderSettings()
    height, width, channels = pixels.shape
    layout = TileLayout(height, width, channels, model.tile_side)
    run = _Run(pixels, layout, model, settings, on_step)
    return run.lossless() if settings.bpd is None else run.within(settings.bpd)


class _Run:
    """One image on its way into a file."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        layout: TileLayout,
        model: CodecModel,
        settings: EncoderSettings,
        on_step: Callable[[int], None],
    ) -> None:
        self._pixels, self._layout, self._model = pixels, layout, model
        self._settings, self._on_step = settings, on_step
        self._signal = layout.split(pixels)
        self._handover = model.schedule.step_at_gamma(settings.handover_gamma)
        self._process = ReverseProcess(model, layout, settings.plan, final_step=0)
        self._writer = BitWriter()
        self._ledger: list[LedgerEntry] = []
        self._evaluations = 1
        # Of a lossy file without packets; no step takes more bits in a header than another.
        self._empty_bytes = len(self._lossy().data)

    def lossless(self) -> Encoded:
        """Hops down to the handover, then the pixels; or the deflated pixels if smaller."""
        while self._process.plan.t > self._handover:
            self._code(*self._next_packet(self._handover))
        coded, stored = self._with_last_stage(), self._stored()
        return stored if len(stored.data) < len(coded.data) else coded

    def within(self, bpd: float) -> Encoded:
        """As many packets as the budget holds; all of them and the pixels if even those fit."""
        budget_bytes = math.floor(min(bpd * self._pixels.size / 8.0, sys.maxsize))
        if budget_bytes < self._empty_bytes:
            raise BudgetError(
                f"{bpd} bits/dim of this image are {budget_bytes} bytes, "
                f"expected at least {self._empty_bytes}"
            )
        if len(self._stored().data) <= budget_bytes:
            return self.lossless()
        while self._process.plan.t > 0:
            correction, packet = self._next_packet(0)
            if self._process.plan.t > self._handover >= packet.s:
                lossless = self._fork().lossless()
                if len(lossless.data) <= budget_bytes:
                    return lossless
            bits_left = self._bits_left(budget_bytes, correction, packet)
            if bits_left < packet.bits:
                if (part := self._process.plan.beginning(packet, bits_left)) is not None:
                    self._code(correction, part)
                break
            self._code(correction, packet)
        return self._lossy()

    def _next_packet(self, end: int) -> tuple[int, Packet]:
        """The correction that fits this image's error, and the packet that it gives."""
        plan, correction = self._process.plan, 0
        if plan.is_due:
            squared_error = self._process.squared_error(self._signal)
            correction = plan.correction_for(squared_error / self._layout.image_dimensions)
        return correction, plan.packet(correction, end)

    def _code(self, correction: int, packet: Packet) -> None:
        process, before = self._process, self._writer.bit_length
        squared_error = process.squared_error(self._signal)
        if packet.corrected:
            self._writer.write_unary(correction)
        process.tell(packet, self._signal, self._writer)
        self._evaluations += packet.begins_hop
        kl_nats = hop_kl_nats(self._model.schedule, packet.s, packet.t, squared_error)
        lossy_bytes = self._empty_bytes + -(-self._writer.bit_length // 8)
        self._ledger.append(
            LedgerEntry(
                t=packet.t,
                s=packet.s,
                kl_bits=nats_to_bits(kl_nats),
                paid_bits=self._writer.bit_length - before,
                cumulative_bpd=bits_per_dimension(8.0 * lossy_bytes, self._pixels.size),
                rmse=self._rmse() if self._traces_here() else None,
            )
        )
        self._on_step(packet.s)

    def _bits_left(self, budget_bytes: int, correction: int, packet: Packet) -> int:
        """What a lossy file of ``budget_bytes`` has left for the code of ``packet``."""
        told = BitWriter()
        if packet.corrected:
            told.write_unary(correction)
        hop_bits = 8 * (budget_bytes - self._empty_bytes)
        return hop_bits - self._writer.bit_length - told.bit_length

    def _traces_here(self) -> bool:
        return self._settings.trace and (not self._layout.seam_windows or self._process.plan.at_hop)

    def _whole_ledger(self) -> tuple[LedgerEntry, ...]:
        """The ledger of a file that ends here."""
        if not self._ledger or not self._settings.trace:
            return tuple(self._ledger)
        *before, last = self._ledger
        rmse = self._rmse() if last.rmse is None else last.rmse
        return (*before, replace(last, rmse=rmse))

    def _rmse(self) -> float:
        decoded = signal_to_levels(self._layout.join(self._process.shown()))
        difference = decoded.astype(np.float64) - self._pixels
        return math.sqrt(float(np.mean(difference**2)))

    def _fork(self) -> "_Run":
        """A run that can go on by itself from here."""
        twin = copy.copy(self)
        # What a trial reaches is not progress.
        twin._on_step = lambda step: None
        twin._process = self._process.fork()
        twin._writer = BitWriter()
        twin._writer.write_bits(self._writer)
        twin._ledger = list(self._ledger)
        return twin

    def _file(self, hops: bytes, payload: bytes = b"", stage: LastStage = LastStage.NONE) -> bytes:
        return assemble(self._header(stage), hops, payload)

    def _header(self, stage: LastStage) -> Header:
        shape = (self._layout.width, self._layout.height, self._layout.channels)
        if stage is LastStage.STORED:
            return Header(*shape, last_stage=stage)
        plan = self._settings.plan
        return Header(
            *shape,
            model_id=self._model.model_id,
            last_stage=stage,
            growth_index=plan.growth_index,
            parts=plan.parts,
            channel_code=plan.code_id,
            final_step=self._process.plan.t,
        )

    def _lossy(self) -> Encoded:
        evaluations = len(self._layout.seam_windows)
        return self._encoded(
            self._file(self._writer.to_bytes()), self._whole_ledger(), evaluations=evaluations
        )

    def _with_last_stage(self) -> Encoded:
        process = self._process
        stage = PixelStage(self._model, self._layout, process.z, process.plan.t)
        groups = min(self._settings.groups, self._model.most_groups)
        payload, ideal_bits = stage.encode(self._pixels, groups)
        data = self._file(self._writer.to_bytes(), payload, LastStage.GAUSSIAN)
        return self._encoded(data, self._whole_ledger(), len(payload), ideal_bits, groups - 1)

    def _stored(self) -> Encoded:
        payload = pack_pixels(self._pixels)
        data = self._file(b"", payload, LastStage.STORED)
        header, _ = Header.unpack(data, "stored pixels", None)
        return Encoded(data, header, (), len(payload), 0.0, 0)

    def _encoded(
        self,
        data: bytes,
        ledger: tuple[LedgerEntry, ...],
        payload_bytes: int = 0,
        last_stage_bits: float = 0.0,
        evaluations: int = 0,
    ) -> Encoded:
        header, _ = Header.unpack(data, "encoded image", None)
        evaluations += self._evaluations
        return Encoded(data, header, ledger, payload_bytes, last_stage_bits, evaluations)
