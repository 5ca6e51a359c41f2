"""The hop plan: where hops end and what each may cost, from numbers that both ends have.

A hop is what happens between two evaluations of the network. It is cut into parts, one packet each,
between which x̂_0 is updated without the network. Hops grow in proportion to the bits already paid
(docs/coding.md), and a packet ends where the KL, at the error that both ends agree on, is what its
bits buy; so an image that is harder than the average takes more hops, not larger ones.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitReader
from diffcodec.coding.channel import CHANNEL_CODES, ChannelCode, CodeState
from diffcodec.diffusion.interpolation import interpolate
from diffcodec.diffusion.process import hop_kl_nats
from diffcodec.diffusion.schedule import Schedule
from diffcodec.diffusion.wiener import GAINS
from diffcodec.errors import BitstreamError

Float64 = NDArray[np.float64]

GROWTH_UNIT = 1.0 / 128.0
SMALLEST_HOP_BITS = 28
SMALLEST_PART_BITS = 28
SMALLEST_VECTOR_BITS = 14
"""For each vector, fewest bits of a hop and of a part, where that is more than those two. All bits
below are for each vector, too."""
HOP_OFFSET_BITS = 64
CORRECTIONS_PER_OCTAVE = 3
LARGEST_CORRECTION = 24
CORRECTION_INTERVAL_BITS = 80
ALWAYS_CORRECTED_BITS = 100
"""So early in a file a hop changes x̂_0's error by more than its mean over images tells."""
LAG_BITS = 28
"""z_T knows nothing of the image, z ~ q(z_T | x) of the error curve does: x̂_0 from it has twice
the curve's error, and 1 + LAG_BITS/(LAG_BITS + B) times once B bits have been paid for each."""
SMALLEST_ERROR = 2.0**-40
LARGEST_ERROR = 4.0
"""Signals lie in [−1, 1], so no error is larger: a stream cannot ask for ever larger packets."""
LARGEST_PACKET_BITS = 1 << 15
"""For each vector, so that no stream can ask for a packet of any size.

With the shipped model and the coarsest plan an image of four times the average error needs 20900.
"""
# 2^(1/3), written out: no platform's pow has a say.
_CORRECTION_RATIO = 1.2599210498948732


@dataclass(frozen=True)
class PlanConfig:
    """The fields of a file's header that decide the plan.

    Attributes:
        growth_index: a hop's bits are (growth_index + 1)/128 of what was paid before it.
        parts: most packets between two evaluations of the network, 1, 4, 16 or 64.
        code_id: key of `CHANNEL_CODES`.
    """

    growth_index: int
    parts: int
    code_id: int

    @property
    def growth(self) -> float:
        """A hop's bits over the bits paid before it."""
        return (self.growth_index + 1) * GROWTH_UNIT

    @property
    def code(self) -> ChannelCode:
        """The channel code.

        Raises:
            BitstreamError: the id is not one that this release knows.
        """
        if self.code_id not in CHANNEL_CODES:
            known = ", ".join(str(key) for key in sorted(CHANNEL_CODES))
            raise BitstreamError(f"expected a channel code of {known}, found {self.code_id}")
        return CHANNEL_CODES[self.code_id]


@dataclass(frozen=True)
class Packet:
    """One transition z_t → z_s.

    Attributes:
        t, s: steps of the grid, s < t.
        bits: the channel code's budget, of all vectors.
        error: the squared error per dimension of x̂_0 that both ends reckon with.
        trust: how far the model's error spectrum is believed in this hop, 0 to 1.
        begins_hop: whether x̂_0 comes straight from the network.
        corrected: whether a correction is told before it.
        runs_on: whether a search for its code should look ahead to packets of nearly the same δ:
            the hop has others, and this one is not the file's last.
    """

    t: int
    s: int
    bits: int
    error: float
    trust: float
    begins_hop: bool
    corrected: bool
    runs_on: bool


class HopPlan:
    """Walks the grid from T to ``final_step``; encoder and decoder each drive one.

    Call `packet`, with the correction where it `is_due`, then `advance`, until `finished`.
    """

    def __init__(
        self,
        config: PlanConfig,
        schedule: Schedule,
        error_curve: Float64,
        spread_curve: Float64,
        dimensions: int,
        vectors: int,
        final_step: int,
    ) -> None:
        """Start at step T.

        Args:
            error_curve: the model's mean squared error per dimension at every step, [T + 1].
            spread_curve: what updates leave of it (`ErrorSpectrum.spread`), [T + 1, GAINS].
            dimensions: the image's coordinates.
            vectors: of the channel code, in which they are.
        """
        self._config, self._code = config, config.code
        self._schedule, self._curve, self._spread = schedule, error_curve, spread_curve
        self._dimensions, self._vectors, self._final_step = dimensions, vectors, final_step
        self.t = schedule.steps
        self._paid_bits = 0
        self._uncorrected_bits = CORRECTION_INTERVAL_BITS * vectors
        self._parts_left = 0
        self._part_bits = 0
        self._difficulty = 1.0
        self._hop_error = 0.0
        self._trust = 1.0
        self._hop_step = schedule.steps
        self._code_state = CodeState(vectors)

    @property
    def finished(self) -> bool:
        """Whether the final step has been reached."""
        return self.t <= self._final_step

    @property
    def at_hop(self) -> bool:
        """Whether the next packet begins a hop, with an evaluation of the network."""
        return self._parts_left == 0

    @property
    def is_due(self) -> bool:
        """Whether a correction is told before the next packet: at a hop, not at every short one.

        From hop to hop an image's error keeps its ratio to the mean over images, more nearly than
        a correction tells.
        """
        always = self._paid_bits < ALWAYS_CORRECTED_BITS * self._vectors
        interval = 0 if always else CORRECTION_INTERVAL_BITS * self._vectors
        return self.at_hop and self._uncorrected_bits >= interval

    @property
    def hop_step(self) -> int:
        """The step at which the hop under way began, where the network was evaluated."""
        return self.t if self.at_hop else self._hop_step

    @property
    def code_state(self) -> CodeState:
        """Where the channel code stands.

        A hop of a single packet begins it anew: so early, the network's next x̂_0 is so much better
        that nothing is gained by going on for the δ that it leaves.
        """
        if self.at_hop and self._hop()[0] == 1:
            return self._code_state.anew()
        return self._code_state

    def predicted_error(self) -> float:
        """What both ends expect of x̂_0's squared error per dimension before it is corrected.

        Inside a hop it is e/(1 + s Δ e), Δ the SNR gained and s what was measured at Δ e, or nearer
        to the 1 of independent errors where the image is not trusted.
        """
        if self.at_hop:
            return max(SMALLEST_ERROR, self._difficulty * self._usual_error())
        gain = float(self._schedule.snr[self.t] - self._schedule.snr[self._hop_step])
        gained = gain * self._hop_error
        spread = float(interpolate(gained, GAINS, self._spread[self._hop_step]))
        spread = 1.0 + self._trust * (spread - 1.0)
        return max(SMALLEST_ERROR, self._hop_error / (1.0 + spread * gained))

    def correction_for(self, error: float) -> int:
        """The correction, in thirds of an octave, that brings the prediction to ``error``.

        0 where none `is_due`.
        """
        if not self.is_due:
            return 0
        ratio = max(error, SMALLEST_ERROR) / self.predicted_error()
        correction = round(CORRECTIONS_PER_OCTAVE * float(np.log2(ratio)))
        return max(-LARGEST_CORRECTION, min(LARGEST_CORRECTION, correction))

    def packet(self, correction: int, final_step: int | None = None) -> Packet:
        """The next packet; does not move.

        Args:
            correction: as told where it `is_due`, else 0.
            final_step: an end other than the plan's own, to ask what another end would give.

        Raises:
            BitstreamError: a correction that no encoder makes.
        """
        if abs(correction) > LARGEST_CORRECTION:
            raise BitstreamError(
                f"expected a correction of at most {LARGEST_CORRECTION} thirds of an octave at "
                f"step {self.t}, found {correction}"
            )
        end = self._final_step if final_step is None else final_step
        error = self.predicted_error() * _power(_CORRECTION_RATIO, correction)
        error = min(LARGEST_ERROR, max(SMALLEST_ERROR, error))
        part_bits, trust = self._part_bits, self._trust
        if self.at_hop:
            _, part_bits = self._hop()
            # Where x̂_0 errs more than on average it errs in other ways, too.
            trust = min(1.0, self._usual_error() / error)
        code, state = self._code, self.code_state
        kl_nats = code.bought_nats(code.nearest_budget(part_bits, state), state)
        s = max(end, self._step_for(kl_nats, error))
        runs_on = s > end and self._hop()[0] > 1
        bits = self._budget(s, error)
        return Packet(self.t, s, bits, error, trust, self.at_hop, self.is_due, runs_on)

    def read_packet(self, reader: BitReader) -> Packet:
        """The next packet, its correction read where it `is_due`; does not move.

        Raises:
            TruncatedStreamError: the correction is not whole.
            BitstreamError: a correction that no encoder makes.
        """
        return self.packet(reader.read_unary(LARGEST_CORRECTION) if self.is_due else 0)

    def beginning(self, packet: Packet, bits: int) -> Packet | None:
        """What the first ``bits`` bits of ``packet``'s code tell, as a packet.

        It is the one that the plan has where a file's final step is its end. None where they do not
        tell anything.
        """
        state = self.code_state
        told = self._code.largest_budget(min(bits, packet.bits), state)
        if not told:
            return None
        nearest = self._step_for(self._code.bought_nats(told, state), packet.error)
        for s in range(max(packet.s, nearest), packet.t):
            budget = self._budget(s, packet.error)
            if budget <= told:
                return replace(packet, s=s, bits=budget, runs_on=False)
        return None

    def advance(self, packet: Packet, code_state: CodeState) -> None:
        """Move to the end of ``packet``, after which the channel code stands at ``code_state``."""
        if self.at_hop:
            self._parts_left, self._part_bits = self._hop()
            self._difficulty = packet.error / max(SMALLEST_ERROR, self._usual_error())
            self._hop_error, self._hop_step, self._trust = packet.error, packet.t, packet.trust
        if packet.corrected:
            self._uncorrected_bits = 0
        self._parts_left -= 1
        self._paid_bits += packet.bits
        self._uncorrected_bits += packet.bits
        self._code_state = code_state
        self.t = packet.s

    def _usual_error(self) -> float:
        """The mean over images of x̂_0's error where a hop begins, as far along the file as here."""
        lag_bits = LAG_BITS * self._vectors
        lag = (self._paid_bits + 2 * lag_bits) / (self._paid_bits + lag_bits)
        return float(self._curve[self.t]) * lag

    def _hop(self) -> tuple[int, int]:
        """Parts of the hop that begins here, and the bits of each."""
        growing = int(self._config.growth * (self._paid_bits + HOP_OFFSET_BITS * self._vectors))
        smallest = SMALLEST_VECTOR_BITS * self._vectors
        bits = max(SMALLEST_HOP_BITS, smallest, growing)
        parts = max(1, min(self._config.parts, bits // max(SMALLEST_PART_BITS, smallest)))
        return parts, bits // parts

    def _budget(self, s: int, error: float) -> int:
        """The bits that lead to step ``s`` at ``error``."""
        code, state = self._code, self.code_state
        kl_nats = hop_kl_nats(self._schedule, s, self.t, self._dimensions * error)
        largest = code.nearest_budget(LARGEST_PACKET_BITS * self._vectors, state)
        kl_nats = min(kl_nats, code.bought_nats(largest, state))
        return code.payload_bits(kl_nats, state)

    def _step_for(self, kl_nats: float, error: float) -> int:
        """The step s < t whose hop at ``error`` comes nearest to ``kl_nats``."""
        snr = self._schedule.snr
        target = float(snr[self.t]) + 2.0 * kl_nats / (self._dimensions * error)
        # SNR falls with the step: search the negated, ascending table.
        upper = int(np.searchsorted(-snr, -target, side="left"))
        upper = min(upper, self.t - 1)
        if upper > 0 and snr[upper - 1] - target < target - snr[upper]:
            upper -= 1
        return upper


def count_evaluations(plan: HopPlan) -> int:
    """Network evaluations of a plan on an image of average difficulty, the last x̂_0 included."""
    evaluations = 1
    while not plan.finished:
        packet = plan.packet(0)
        evaluations += packet.begins_hop
        plan.advance(packet, _gone_on(plan))
    return evaluations


def hop_stream_bits(plan: HopPlan, reader: BitReader) -> int:
    """Length of the hops at the beginning of ``reader``, by their corrections alone.

    Walks ``plan``, which begins at step T, to its end.

    Raises:
        TruncatedStreamError: the bits run out before.
        BitstreamError: a correction that no encoder makes.
    """
    while not plan.finished:
        packet = plan.read_packet(reader)
        reader.skip(packet.bits)
        plan.advance(packet, _gone_on(plan))
    return reader.position


def _gone_on(plan: HopPlan) -> CodeState:
    """All that a plan asks of a state after a packet: that the code goes on from it."""
    return replace(plan.code_state, register=0)


def _power(base: float, exponent: int) -> float:
    """``base`` to an integer power by multiplications alone, the same on every platform."""
    product = 1.0
    for _ in range(abs(exponent)):
        product *= base
    return product if exponent >= 0 else 1.0 / product
