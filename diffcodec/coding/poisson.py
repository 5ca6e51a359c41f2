"""Exact relative-entropy coding on small chunks: a reference for tests and benchmarks.

The Poisson functional representation (Li and El Gamal 2018, arXiv:1701.02827), as in DiffC: the
points of a shared Poisson process have arrival times T_1 < T_2 < … of unit rate and marks z_i from
the prior P = N(0, I); the encoder names the index of least T_i/w(z_i), w = dQ/dP, and z_i there is
distributed exactly as Q. Time and the index's overhead grow with KL, exponentially and
logarithmically, so δ is cut into chunks of interleaved coordinates of about four bits each.

The ratio w(z) = exp(⟨δ, z⟩ − ‖δ‖²/2) has no bound, so a search can stop only when a later point is
unlikely to win. Points after time T with T_i/w below the best so far, M, are a Poisson process of
mean ∫_T^∞ P(w > t/M) dt = M · E[(w − T/M)⁺] = M · (Φ(d) − (T/M) Φ(d − r)), r = ‖δ‖,
d = (r²/2 − ln(T/M))/r: an option price of Black and Scholes. The search stops when this mean, and
so the probability that the result is not the exact one, is below ``tolerance``: that is a bound on
the total variation between the sample's distribution and Q, for each chunk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitReader, BitWriter
from diffcodec.coding.channel import CodeState, Float32, InverseFft
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats, nats_to_bits

_BLOCK = 1024
_LAST_BLOCK = 1 << 12
# Where a chunk's stream numbers lie: group, chunk, then blocks of marks or of times.
_GROUP_SHIFT, _CHUNK_SHIFT, _TIMES = 48, 32, 1 << 31

# (KL of a chunk, mean length of its code), both in bits: measured over 1000 chunks at the Rice
# parameters below, ± 0.1.
_CHUNK_COST = ((0.0, 1.0), (1.0, 3.17), (2.0, 4.56), (3.0, 5.61), (4.0, 6.82))
_CHUNK_KL_BITS, _CHUNK_CODE_BITS = _CHUNK_COST[-1]


def _expected_later_winners(best: float, time: float, radius: float) -> float:
    """Mean number of points after ``time`` whose T/w is below ``best``, ‖δ‖ being ``radius``."""
    strike = time / best
    if radius == 0.0:
        return best * max(0.0, 1.0 - strike)
    d = (0.5 * radius * radius - math.log(strike)) / radius
    tail, shifted = (0.5 * math.erfc(-x / math.sqrt(2.0)) for x in (d, d - radius))
    return best * max(0.0, tail - strike * shifted)


@dataclass(frozen=True)
class PoissonCode:
    """A ``ChannelCode`` whose codes vary in length: ``bits`` plans chunks, it is not what is paid.

    A chunk that exceeds its plan so far that 2^22 points do not reach ``tolerance`` is given the
    best of them.

    >>> from diffcodec.bits import BitReader, BitWriter
    >>> code, noise, writer = PoissonCode(), SharedNoise(domain=9), BitWriter()
    >>> c, _ = code.encode(np.full((1, 8), 0.5, np.float32), 4, noise, CodeState(), writer)
    >>> decoded, _ = code.decode(8, 4, noise, CodeState(), BitReader(writer.to_bytes()))
    >>> bool((c == decoded).all())
    True
    """

    tolerance: float = 1e-4

    name: ClassVar[str] = "poisson"
    code_id: ClassVar[int] = 255

    def searching_with(self, inverse_fft: InverseFft) -> Self:
        """Itself: its search has no FFT."""
        return self

    def nearest_budget(self, bits: int, state: CodeState) -> int:
        """Any whole number of bits for each vector, at least one, can be planned."""
        return state.vectors * max(1, round(bits / state.vectors))

    def largest_budget(self, bits: int, state: CodeState) -> int:
        """None: the lengths of codes vary, and no beginning of a packet is one."""
        return 0

    def payload_bits(self, kl_nats: float, state: CodeState) -> int:
        """The mean length of codes that carry ``kl_nats``."""
        kl_bits = nats_to_bits(float(kl_nats)) / state.vectors
        chunks = max(1, math.ceil(kl_bits / _CHUNK_KL_BITS))
        one = max(1, math.floor(chunks * _interpolate(_CHUNK_COST, kl_bits / chunks)))
        return state.vectors * one

    def bought_nats(self, bits: int, state: CodeState) -> float:
        """The KL, Σ r²/2 nats, whose codes are ``bits`` long on average."""
        one = bits // state.vectors
        return bits_to_nats(state.vectors * self._chunks(one) * self._chunk_kl_bits(one))

    def encode(
        self,
        delta: Float32,
        bits: int,
        noise: SharedNoise,
        state: CodeState,
        writer: BitWriter,
        *,
        runs_on: bool = True,
    ) -> tuple[Float32, CodeState]:
        """Write codes for ``delta``, float32[V, n]; return ``decode``'s c."""
        noise, one = noise.substream(state.sections), bits // state.vectors
        chunks, rice = self._chunks(one), self._rice_parameter(one)
        code = np.empty(delta.shape, dtype=np.float32)
        for group, row in enumerate(delta):
            for chunk in range(chunks):
                stream = group << _GROUP_SHIFT | chunk << _CHUNK_SHIFT
                part = row[chunk::chunks]
                index = self._search(part, noise, stream)
                _write_index(index, rice, writer)
                code[group, chunk::chunks] = _mark(index, len(part), noise, stream)
        return code, replace(state, sections=state.sections + 1)

    def decode(
        self,
        dimension: int,
        bits: int,
        noise: SharedNoise,
        state: CodeState,
        reader: BitReader,
    ) -> tuple[Float32, CodeState]:
        """Read codes for V vectors: c, float32[V, n]. Raises TruncatedStreamError at the end."""
        noise, one = noise.substream(state.sections), bits // state.vectors
        chunks, rice = self._chunks(one), self._rice_parameter(one)
        code = np.empty((state.vectors, dimension), dtype=np.float32)
        for group in range(state.vectors):
            for chunk in range(chunks):
                stream = group << _GROUP_SHIFT | chunk << _CHUNK_SHIFT
                index = _read_index(rice, reader)
                part = code[group, chunk::chunks]
                part[:] = _mark(index, len(part), noise, stream)
        return code, replace(state, sections=state.sections + 1)

    def _chunks(self, bits: int) -> int:
        if bits < 1:
            raise ValueError(f"{self.name} has no budget of {bits} bits")
        return max(1, math.ceil(bits / _CHUNK_CODE_BITS))

    def _chunk_kl_bits(self, bits: int) -> float:
        swapped = [(cost, kl) for kl, cost in _CHUNK_COST]
        return _interpolate(swapped, bits / self._chunks(bits))

    def _rice_parameter(self, bits: int) -> int:
        """Of the code of ⌊log2 index⌋, nearly geometric under Li and El Gamal's Zipf law."""
        kl_bits = self._chunk_kl_bits(bits)
        return 0 if kl_bits < 1.75 else 1

    def _search(self, delta: Float32, noise: SharedNoise, stream: int) -> int:
        """The index, from 0, of least T_i/w(z_i)."""
        radius = float(np.sqrt(np.square(delta, dtype=np.float64).sum()))
        best, best_index, time = math.inf, 0, 0.0
        for block in range(_LAST_BLOCK):
            words = noise.words(stream | _TIMES | block, _BLOCK)
            uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
            times = time - np.cumsum(np.log(uniform))
            marks = noise.normal(stream | block, (_BLOCK, len(delta)))
            ratio_log = (marks @ delta).astype(np.float64) - 0.5 * radius * radius
            scores = times * np.exp(-ratio_log)
            winner = int(np.argmin(scores))
            if scores[winner] < best:
                best, best_index = float(scores[winner]), block * _BLOCK + winner
            time = float(times[-1])
            if _expected_later_winners(best, time, radius) < self.tolerance:
                break
        return best_index


def _mark(index: int, dimension: int, noise: SharedNoise, stream: int) -> NDArray[np.float32]:
    """z of the process's point ``index``, from 0: float32[dimension]."""
    block, row = divmod(index, _BLOCK)
    marks = noise.normal(stream | block, (_BLOCK, dimension))
    return np.asarray(marks[row], dtype=np.float32)


def _write_index(index: int, rice: int, writer: BitWriter) -> None:
    """index + 1 = 2^m + rest: m by Rice's code (unary ⌊m/2^rice⌋, then its low bits), rest in m."""
    magnitude = (index + 1).bit_length() - 1
    quotient = magnitude >> rice
    writer.write((1 << (quotient + 1)) - 2, quotient + 1)
    writer.write(magnitude & ((1 << rice) - 1), rice)
    writer.write(index + 1 - (1 << magnitude), magnitude)


def _read_index(rice: int, reader: BitReader) -> int:
    quotient = 0
    while reader.read(1):
        quotient += 1
    magnitude = quotient << rice | reader.read(rice)
    return (1 << magnitude | reader.read(magnitude)) - 1


def _interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """The piecewise linear function through ascending ``points``, its end pieces prolonged."""
    piece = 0
    while piece < len(points) - 2 and x > points[piece + 1][0]:
        piece += 1
    (x0, y0), (x1, y1) = points[piece], points[piece + 1]
    return y0 + (x - x0) * ((y1 - y0) / (x1 - x0))
