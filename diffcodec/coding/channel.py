"""The relative-entropy coder: tell a decoder a sample near a posterior at about the cost of KL.

A hop of the diffusion needs c, unit Gaussian noise whose projection on δ/‖δ‖ is ‖δ‖, where
δ = (μ_Q − μ_P)/σ_Q is known to the encoder alone; its KL is ‖δ‖²/2 nats. A channel code sees only
δ, a budget of bits and shared noise.

``TrellisCode`` is a sparse regression code (Venkataramanan et al. 2012, arXiv:1212.1707) of equal
weights: c = Σ_j c_j/√L, each section's codeword c_j one of 2^ν cyclic shifts, of either sign, of a
small bank of shared Gaussian vectors. The sections are tied by a shift register of which k bits
are new in each, and the encoder finds the path of largest ⟨δ, c⟩ by Viterbi's algorithm. The
decoder only rolls and adds: its result does not depend on any FFT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitReader, BitWriter
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats, nats_to_bits

Float32 = NDArray[np.float32]

CODEBOOK_DOMAIN = 0x636F6465626F6F6B
"""Philox domain of the codebooks, "codebook" in ASCII; no other noise may use it."""

# Correlation tables of this many float32 are computed at a time: they fit the second-level cache.
_CORRELATION_CHUNK = 1 << 18


class ChannelCode(Protocol):
    """What the codec asks of a relative-entropy coder; G vectors of n coordinates at a time."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def code_id(self) -> int:
        """What a file's header calls this code."""

    def payload_bits(self, kl_nats: float) -> int:
        """The budget, in bits for each vector, that buys nearest to ``kl_nats``."""

    def nearest_budget(self, bits: int) -> int:
        """The budget nearest to ``bits`` among those that the code can spend."""

    def bought_nats(self, bits: int) -> float:
        """The KL, r²/2 nats, that a budget of ``bits`` buys on average."""

    def encode(self, delta: Float32, bits: int, noise: SharedNoise, writer: BitWriter) -> Float32:
        """Write codes for ``delta``, float32[G, n], and return the c that ``decode`` will give."""

    def decode(
        self, shape: tuple[int, int], bits: int, noise: SharedNoise, reader: BitReader
    ) -> Float32:
        """Read codes for G vectors and return c, float32[G, n]: unit noise that leans to δ."""


@lru_cache(maxsize=8)
def _codebook(bank_size: int, dimension: int) -> Float32:
    """Shared vectors of squared norm n, written twice over: float32[bank_size, 2n].

    The squared norm is summed in integers, so that the order of summation cannot matter.
    """
    noise = SharedNoise(CODEBOOK_DOMAIN, dimension)
    bank = np.empty((bank_size, 2 * dimension), dtype=np.float32)
    for row in range(bank_size):
        steps = noise.normal_steps(row, (dimension,)).astype(np.int64)
        scale = np.sqrt(np.float64(dimension) / np.float64(int((steps * steps).sum())))
        bank[row, :dimension] = steps * scale
        bank[row, dimension:] = bank[row, :dimension]
    bank.flags.writeable = False
    return bank


@lru_cache(maxsize=8)
def _codebook_spectrum(bank_size: int, dimension: int) -> NDArray[np.complex64]:
    """Complex conjugate spectra of the bank: complex64[bank_size, n // 2 + 1]."""
    return np.conj(np.fft.rfft(_codebook(bank_size, dimension)[:, :dimension], axis=1))


@dataclass(frozen=True)
class TrellisCode:
    """Circulant codebooks on a trellis: design.md §3.

    A section's register R has ``register_bits`` = ν bits, of which ``new_bits`` = k are new:
    R_j = (R_{j−1} · 2^k + new) mod 2^ν. Its codeword number is R rotated right by k places; the
    number's top bit is set for a minus sign, the rest m names vector ⌊m/n⌋ of the bank, rolled by
    m mod n places. L sections cost ν + k(L − 1) bits: R_1, then each section's new bits.
    ``prices`` lists (bits paid, bits of KL bought) at a few budgets, measured at n = 3072 by
    ``benchmarks/channel_price.py``; both ascend.

    >>> from diffcodec.bits import BitReader, BitWriter
    >>> code, noise, writer = CHANNEL_CODES[1], SharedNoise(domain=9), BitWriter()
    >>> delta = np.full((1, 300), 0.3, dtype=np.float32)
    >>> c = code.encode(delta, 32, noise, writer)
    >>> decoded = code.decode((1, 300), 32, noise, BitReader(writer.to_bytes()))
    >>> writer.bit_length, bool((c == decoded).all())
    (32, True)
    """

    code_id: int
    register_bits: int
    new_bits: int
    prices: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if not 1 <= self.new_bits < self.register_bits <= 24:
            raise ValueError(f"expected 1 ≤ new bits < register bits ≤ 24: {self.name}")

    @property
    def name(self) -> str:
        """``trellis-ν-k``."""
        return f"trellis-{self.register_bits}-{self.new_bits}"

    def budget_bits(self, sections: int) -> int:
        """What ``sections`` ≥ 1 sections cost: ν + k(L − 1) bits."""
        return self.register_bits + self.new_bits * (sections - 1)

    def sections(self, bits: int) -> int:
        """The inverse of ``budget_bits``; ValueError if no number of sections costs ``bits``."""
        extra, rest = divmod(bits - self.register_bits, self.new_bits)
        if extra < 0 or rest:
            raise ValueError(f"{self.name} has no budget of {bits} bits")
        return extra + 1

    def nearest_budget(self, bits: int) -> int:
        """The budget nearest to ``bits``, at least ν."""
        return self.budget_bits(max(1, round((bits - self.register_bits) / self.new_bits) + 1))

    def payload_bits(self, kl_nats: float) -> int:
        """The budget, in bits for each vector, that buys nearest to ``kl_nats`` (at least ν)."""
        wanted_bits = nats_to_bits(float(kl_nats))
        paid_bits = interpolate([(bought, paid) for paid, bought in self.prices], wanted_bits)
        guess = max(1, round((paid_bits - self.register_bits) / self.new_bits) + 1)
        budgets = [self.budget_bits(max(1, guess + step)) for step in (-1, 0, 1)]
        return min(budgets, key=lambda bits: abs(interpolate(self.prices, bits) - wanted_bits))

    def bought_nats(self, bits: int) -> float:
        """The KL, r²/2 nats, that a budget of ``bits`` buys on average (linear in ``prices``)."""
        self.sections(bits)
        return bits_to_nats(interpolate(self.prices, bits))

    def encode(self, delta: Float32, bits: int, noise: SharedNoise, writer: BitWriter) -> Float32:
        """Write ``bits`` bits for each row of ``delta``, float32[G, n]; return ``decode``'s c.

        Group g's signs come from ``noise``, stream g. Ties and FFT rounding affect only the choice
        of path. Raises ValueError for a budget that no number of sections costs.
        """
        sections = self.sections(bits)
        groups, dimension = delta.shape
        code = np.empty((groups, dimension), dtype=np.float32)
        for group in range(groups):
            signs = noise.signs(group, (sections, dimension))
            registers = self._search(delta[group], signs)
            writer.write(int(registers[0]), self.register_bits)
            writer.write_array(registers[1:] & ((1 << self.new_bits) - 1), self.new_bits)
            code[group] = self._sum_codewords(registers, signs)
        return code

    def decode(
        self, shape: tuple[int, int], bits: int, noise: SharedNoise, reader: BitReader
    ) -> Float32:
        """Read ``bits`` bits for each of G vectors: c, float32[G, n], the same on every platform.

        Raises TruncatedStreamError where the reader ends, ValueError for an impossible budget.
        """
        sections = self.sections(bits)
        groups, dimension = shape
        code = np.empty(shape, dtype=np.float32)
        for group in range(groups):
            register = reader.read(self.register_bits)
            registers = np.empty(sections, dtype=np.int64)
            registers[0] = register
            new = reader.read_array(sections - 1, self.new_bits)
            for section, value in enumerate(new.tolist(), start=1):
                register = (register << self.new_bits | value) & ((1 << self.register_bits) - 1)
                registers[section] = register
            signs = noise.signs(group, (sections, dimension))
            code[group] = self._sum_codewords(registers, signs)
        return code

    def _bank_size(self, dimension: int) -> int:
        return -(-(1 << self.register_bits) // (2 * dimension))

    def _codeword_number(self, registers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The register rotated right by k places, so that the new bits come first.

        The tables of the search then need no transposition.
        """
        high = (registers & ((1 << self.new_bits) - 1)) << (self.register_bits - self.new_bits)
        return high | (registers >> self.new_bits)

    def _sum_codewords(self, registers: NDArray[np.int64], signs: Float32) -> Float32:
        """c = Σ_j signs_j · c_j/√L, added in float32 in the order of the sections: float32[n]."""
        sections, dimension = signs.shape
        bank = _codebook(self._bank_size(dimension), dimension)
        half = 1 << (self.register_bits - 1)
        total = np.zeros(dimension, dtype=np.float32)
        for number, flips in zip(self._codeword_number(registers).tolist(), signs, strict=True):
            vector, shift = divmod(number % half, dimension)
            codeword = bank[vector, dimension - shift : 2 * dimension - shift] * flips
            if number < half:
                total += codeword
            else:
                total -= codeword
        total /= np.sqrt(np.float32(sections))
        return total

    def _correlations(self, delta: Float32, signs: Float32) -> Float32:
        """⟨δ · signs_j, codeword m⟩ for the positive half of the codewords: float32[L, 2^(ν−1)]."""
        sections, dimension = signs.shape
        half = 1 << (self.register_bits - 1)
        bank_size = self._bank_size(dimension)
        spectrum = _codebook_spectrum(bank_size, dimension)
        table = np.empty((sections, half), dtype=np.float32)
        step = max(1, _CORRELATION_CHUNK // (bank_size * dimension))
        for start in range(0, sections, step):
            flipped = np.fft.rfft(signs[start : start + step] * delta, axis=1)
            rows = np.fft.irfft(flipped[:, None, :] * spectrum, n=dimension, axis=2)
            table[start : start + step] = rows.reshape(len(rows), -1)[:, :half]
        return table

    def _search(self, delta: Float32, signs: Float32) -> NDArray[np.int64]:
        """Viterbi: the registers of the path with the largest Σ_j ⟨δ · signs_j, c_j⟩: int64[L].

        A state is the ν − k bits that the next register keeps. Only the best score of each state
        is stored; the trace back finds again which of its 2^k predecessors it came from.
        """
        width, new = self.register_bits, self.new_bits
        states = 1 << (width - new)
        branches = 1 << new
        table = self._correlations(delta, signs)
        sections, half = table.shape
        score = np.empty(2 * half, dtype=np.float32)
        positive = score[:half].reshape(-1, states)
        negative = score[half:].reshape(-1, states)
        best = np.zeros((sections + 1, states), dtype=np.float32)
        # Codeword numbers read [new, register >> k]; dropping the register's top k bits leaves
        # the state [rest, new], where a register shorter than 2k has its new bits dropped too.
        kept = max(0, width - 2 * new)
        for section in range(sections):
            row = table[section].reshape(-1, states)
            np.add(best[section], row, out=positive)
            np.subtract(best[section], row, out=negative)
            if width >= 2 * new:
                merged = score.reshape(branches, branches, 1 << kept).max(axis=1)
                best[section + 1] = merged.T.ravel()
            else:
                # [new dropped, new kept, register >> k]
                merged = score.reshape(-1, states, states).max(axis=(0, 2))
                best[section + 1] = merged
        registers = np.empty(sections, dtype=np.int64)
        candidates = np.arange(1 << width, dtype=np.int64)
        for section in range(sections - 1, -1, -1):
            number = self._codeword_number(candidates)
            correlation = table[section][number % half]
            correlation = np.where(number < half, correlation, -correlation)
            register = candidates[np.argmax(correlation + best[section][candidates >> new])]
            registers[section] = register
            candidates = (np.arange(branches, dtype=np.int64) << (width - new)) | (register >> new)
        return registers


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """The piecewise linear function through ascending ``points``, its end pieces prolonged."""
    piece = 0
    while piece < len(points) - 2 and x > points[piece + 1][0]:
        piece += 1
    (x0, y0), (x1, y1) = points[piece], points[piece + 1]
    return y0 + (x - x0) * ((y1 - y0) / (x1 - x0))


# (bits paid, bits of KL bought) at 1, 2, 3, 4, 6, 8, 12, … 128 sections, n = 3072, by
# `python -m benchmarks.channel_price --trials 4000`.
_PRICES_16_8 = (
    (16, 13.24),
    (24, 20.64),
    (32, 27.91),
    (40, 35.24),
    (56, 49.99),
    (72, 64.72),
    (104, 94.39),
    (136, 124.09),
    (200, 183.72),
    (264, 242.54),
    (392, 360.4),
    (520, 479.55),
    (776, 712.56),
    (1032, 953.58),
)
_PRICES_12_4 = (
    (12, 9.48),
    (16, 13.13),
    (20, 16.7),
    (24, 20.14),
    (32, 27.51),
    (40, 34.51),
    (56, 48.72),
    (72, 63.18),
    (104, 91.95),
    (136, 120.77),
    (200, 178.21),
    (264, 236.86),
    (392, 353.16),
    (520, 468.94),
)
_PRICES_16_4 = (
    (16, 13.21),
    (20, 17.02),
    (24, 20.75),
    (28, 24.35),
    (36, 31.73),
    (44, 39.35),
    (60, 54.32),
    (76, 69.12),
    (108, 99.02),
    (140, 129.12),
    (204, 189.89),
    (268, 249.93),
    (396, 370.67),
    (524, 492.22),
)

CHANNEL_CODES: dict[int, TrellisCode] = {
    code.code_id: code
    for code in (
        TrellisCode(0, 16, 8, _PRICES_16_8),
        TrellisCode(1, 12, 4, _PRICES_12_4),
        TrellisCode(2, 16, 4, _PRICES_16_4),
    )
}
"""The codes that a file's header can name. New ones may be appended; none may change."""
