"""The relative-entropy coder: tell a decoder a sample near a posterior at about the cost of KL.

A hop of the diffusion needs c, unit Gaussian noise whose projection on δ/‖δ‖ is ‖δ‖, where
δ = (μ_Q − μ_P)/σ_Q is known to the encoder alone; its KL is ‖δ‖²/2 nats. A channel code sees only
δ, a budget of bits and shared noise.

``TrellisCode`` is a sparse regression code (Venkataramanan et al. 2012, arXiv:1212.1707) of equal
weights: c = Σ_j c_j/√L, each section's codeword c_j one of 2^ν cyclic shifts, of either sign, of a
small bank of shared Gaussian vectors. The sections are tied by a shift register of which k bits
are new in each, and the encoder finds the path of largest ⟨δ, c⟩ by Viterbi's algorithm. The
register runs on from vector to vector and from packet to packet: the search looks a few sections
past the end of a packet, as if δ stayed what it is, so that a packet can be a handful of sections
without paying for a start. The decoder only rolls and adds: its result does not depend on any FFT.
"""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from diffcodec.bits import BitReader, BitWriter
from diffcodec.coding.shared_noise import SharedNoise, signs_of_words
from diffcodec.units import bits_to_nats, nats_to_bits

Float32 = NDArray[np.float32]
Spectra = NDArray[np.complex64]
InverseFft = Callable[[Spectra, int], Float32]
"""Real vectors of length n from the first n // 2 + 1 of their coefficients: float32[…, n]."""

CODEBOOK_DOMAIN = 0x636F6465626F6F6B
"""Philox domain of the codebooks, "codebook" in ASCII; no other noise may use it."""

# Products of spectra are computed this many float32 at a time: they stay in the second-level cache.
_PRODUCT_SIZE = 1 << 17
# A search has tables of at most so many float32, 64 MiB: longer packets are searched in blocks.
_TABLE_SIZE = 1 << 24
# Sections added up at a time by a decoder, so that memory does not grow with a packet.
_BLOCK_SECTIONS = 256


@dataclass(frozen=True)
class CodeState:
    """Where a stream of packets stands; each packet begins where the one before it ended.

    Attributes:
        vectors: V, how many every packet tells of.
        sections: sections, or whatever a code counts, told so far.
        register: what the next section's codeword depends on; None where the code begins anew.
    """

    vectors: int = 1
    sections: int = 0
    register: int | None = None

    def anew(self) -> "CodeState":
        """The same place, for a packet that owes nothing to the one before it."""
        return replace(self, register=None)

    def following(self, sections: int) -> range:
        """The numbers of so many sections from here on."""
        return range(self.sections, self.sections + sections)


class ChannelCode(Protocol):
    """What the codec asks of a relative-entropy coder; V vectors of n coordinates at a time.

    Budgets are bits of a packet, of all vectors, and KL is that of all vectors.
    """

    @property
    def name(self) -> str:
        """For people."""

    @property
    def code_id(self) -> int:
        """What a file's header calls this code."""

    def searching_with(self, inverse_fft: InverseFft) -> Self:
        """The same code, its search made with that FFT: another may be faster than NumPy's."""

    def payload_bits(self, kl_nats: float, state: CodeState) -> int:
        """The budget that buys nearest to ``kl_nats``."""

    def nearest_budget(self, bits: int, state: CodeState) -> int:
        """The budget nearest to ``bits`` among those that the code can spend."""

    def largest_budget(self, bits: int, state: CodeState) -> int:
        """The largest budget of at most ``bits``; 0 if there is none.

        A packet's first bits, if so many, are a packet of that budget.
        """

    def bought_nats(self, bits: int, state: CodeState) -> float:
        """The KL, r²/2 nats, that a budget of ``bits`` buys on average."""

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
        """Write codes for ``delta``, float32[V, n]; the c that ``decode`` will give, and after.

        ``runs_on`` says whether a packet for nearly the same δ goes on where this one ends.
        """

    def decode(
        self,
        dimension: int,
        bits: int,
        noise: SharedNoise,
        state: CodeState,
        reader: BitReader,
    ) -> tuple[Float32, CodeState]:
        """Read codes for V vectors: c, float32[V, n], unit noise that leans to δ, and after.

        ``dimension`` is n.
        """


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


def numpy_inverse_fft(spectra: Spectra, length: int) -> Float32:
    """NumPy's, which computes in the type of its input; its stub knows float64 alone."""
    vectors: Float32 = np.fft.irfft(spectra, n=length)  # type: ignore[assignment]
    return vectors


@lru_cache(maxsize=8)
def _codebook_spectrum(bank_size: int, dimension: int) -> Spectra:
    """Complex conjugate spectra of the bank: complex64[bank_size, n // 2 + 1]."""
    return np.conj(np.fft.rfft(_codebook(bank_size, dimension)[:, :dimension], axis=1))


@dataclass(frozen=True)
class TrellisCode:
    """Circulant codebooks on a trellis: docs/format.md, Channel code.

    A stream's sections go to the V vectors in turn, section j to vector j mod V; a packet has at
    least V of them. A section's register R has ``register_bits`` = ν bits, of which ``new_bits`` =
    k are new: R_j = (R_{j−1} · 2^k + new) mod 2^ν. Its codeword number is R rotated right by k
    places; the number's top bit is set for a minus sign, the rest m names vector ⌊m/n⌋ of the bank,
    rolled by m mod n places. Where the code begins anew the first section costs ν bits, every other
    k. ``first_bits`` and ``section_bits`` are the bits of KL that they buy, measured at n = 3072 by
    ``benchmarks/channel_price.py``.

    Section j has its signs from the noise's index j.

    >>> from diffcodec.bits import BitReader, BitWriter
    >>> code, noise, writer = TrellisCode(9, 12, 4, 7.5, 3.6), SharedNoise(domain=9), BitWriter()
    >>> delta = np.full((2, 300), 0.3, dtype=np.float32)
    >>> c, state = code.encode(delta, 52, noise, CodeState(vectors=2), writer)
    >>> reader = BitReader(writer.to_bytes())
    >>> decoded, _ = code.decode(300, 52, noise, CodeState(vectors=2), reader)
    >>> writer.bit_length, state.sections, bool((c == decoded).all())
    (52, 11, True)
    """

    code_id: int
    register_bits: int
    new_bits: int
    first_bits: float
    section_bits: float
    lookahead: int = field(default=16, compare=False)
    """Sections that the encoder's search goes past the end of a packet."""
    inverse_fft: InverseFft = field(default=numpy_inverse_fft, compare=False, repr=False)
    """Of the encoder's search."""

    def __post_init__(self) -> None:
        if not 1 <= self.new_bits <= self.register_bits // 2 <= 12:
            raise ValueError(f"expected 1 ≤ new bits ≤ register bits/2 ≤ 12: {self.name}")

    @property
    def name(self) -> str:
        """``trellis-ν-k``."""
        return f"trellis-{self.register_bits}-{self.new_bits}"

    def searching_with(self, inverse_fft: InverseFft) -> Self:
        """The same code, its search made with that FFT."""
        return replace(self, inverse_fft=inverse_fft)

    def budget_bits(self, sections: int, state: CodeState) -> int:
        """What ``sections`` ≥ V further sections cost."""
        start = 0 if state.register is not None else self.register_bits - self.new_bits
        return start + self.new_bits * sections

    def sections(self, bits: int, state: CodeState) -> int:
        """The inverse of ``budget_bits``; ValueError if no number of sections costs ``bits``."""
        sections, rest = divmod(bits - self.budget_bits(0, state), self.new_bits)
        if sections < state.vectors or rest:
            raise ValueError(f"{self.name} has no budget of {bits} bits for {state.vectors}")
        return sections

    def nearest_budget(self, bits: int, state: CodeState) -> int:
        """The budget nearest to ``bits``, of at least a section for each vector."""
        sections = round((bits - self.budget_bits(0, state)) / self.new_bits)
        return self.budget_bits(max(state.vectors, sections), state)

    def largest_budget(self, bits: int, state: CodeState) -> int:
        """The largest budget of at most ``bits``; 0 where they hold no section for each vector."""
        sections = (bits - self.budget_bits(0, state)) // self.new_bits
        return self.budget_bits(sections, state) if sections >= state.vectors else 0

    def payload_bits(self, kl_nats: float, state: CodeState) -> int:
        """The budget that buys nearest to ``kl_nats``."""
        kl_bits = nats_to_bits(float(kl_nats)) - self._start_bits(state)
        sections = round(kl_bits / self.section_bits)
        return self.budget_bits(max(state.vectors, sections), state)

    def bought_nats(self, bits: int, state: CodeState) -> float:
        """The KL, Σ r²/2 nats, that a budget of ``bits`` buys on average."""
        sections = self.sections(bits, state)
        return bits_to_nats(self._start_bits(state) + sections * self.section_bits)

    def _start_bits(self, state: CodeState) -> float:
        """What the first section buys more than another."""
        return 0.0 if state.register is not None else self.first_bits - self.section_bits

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
        """Write ``bits`` bits for the rows of ``delta``, float32[V, n]; return ``decode``'s c.

        A long packet is searched in blocks, each as if the next were another packet.

        Ties and FFT rounding affect only the choice of path. Raises ValueError for a budget that no
        number of sections costs, and for rows that are not the state's vectors.
        """
        count, dimension = delta.shape
        if count != state.vectors:
            raise ValueError(f"expected {state.vectors} vectors, found {count}")
        told, register = state.following(self.sections(bits, state)), state.register
        end = told.stop + (self.lookahead if runs_on else 0)
        total = np.zeros(delta.shape, dtype=np.float32)
        most = _TABLE_SIZE // (self._bank_size(dimension) * dimension) - self.lookahead
        for block in _blocks(told, max(1, most)):
            searched = range(block.start, min(block.stop + self.lookahead, end))
            signs = _signs(noise, searched, dimension)
            rows = delta[np.arange(searched.start, searched.stop) % count]
            registers = self._search(rows, signs, register)[: len(block)]
            if register is None:
                writer.write_array(registers[:1], self.register_bits)
            fresh = registers if register is not None else registers[1:]
            writer.write_array(fresh & ((1 << self.new_bits) - 1), self.new_bits)
            self._add_codewords(total, block, registers, signs)
            register = int(registers[-1])
        total /= _roots(told, count)
        return total, replace(state, sections=told.stop, register=register)

    def decode(
        self,
        dimension: int,
        bits: int,
        noise: SharedNoise,
        state: CodeState,
        reader: BitReader,
    ) -> tuple[Float32, CodeState]:
        """Read ``bits`` bits for V vectors: c, float32[V, n], the same on every platform.

        Raises TruncatedStreamError where the reader ends, ValueError for an impossible budget.
        """
        told, register = state.following(self.sections(bits, state)), state.register
        reader.require(bits)
        mask = (1 << self.register_bits) - 1
        total = np.zeros((state.vectors, dimension), dtype=np.float32)
        for block in _blocks(told, _BLOCK_SECTIONS):
            registers: list[int] = []
            if register is None:
                registers.append(reader.read(self.register_bits))
                register = registers[0]
            for value in reader.read_array(len(block) - len(registers), self.new_bits).tolist():
                register = (register << self.new_bits | value) & mask
                registers.append(register)
            signs = _signs(noise, block, dimension)
            self._add_codewords(total, block, np.array(registers), signs)
        total /= _roots(told, state.vectors)
        return total, replace(state, sections=told.stop, register=register)

    def _bank_size(self, dimension: int) -> int:
        return -(-(1 << self.register_bits) // (2 * dimension))

    def _codeword_number(self, registers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The register rotated right by k places, so that the new bits come first.

        The tables of the search then need no transposition.
        """
        high = (registers & ((1 << self.new_bits) - 1)) << (self.register_bits - self.new_bits)
        return high | (registers >> self.new_bits)

    def _add_codewords(
        self, total: Float32, sections: range, registers: NDArray[np.int64], signs: Float32
    ) -> None:
        """Add signs_j · c_j to its vector's row of ``total``, float32[V, n], section by section.

        Args:
            signs: of ``sections`` and whatever was looked ahead at.
        """
        vectors, dimension = total.shape
        bank = _codebook(self._bank_size(dimension), dimension)
        half = 1 << (self.register_bits - 1)
        numbers = self._codeword_number(registers).tolist()
        for section, number, flips in zip(sections, numbers, signs, strict=False):
            row = total[section % vectors]
            vector, shift = divmod(number % half, dimension)
            codeword = bank[vector, dimension - shift : 2 * dimension - shift] * flips
            if number < half:
                row += codeword
            else:
                row -= codeword

    def _correlations(self, delta: Float32, signs: Float32) -> Float32:
        """⟨δ_j · signs_j, codeword m⟩ for all shifts of the bank: float32[L, B·n], this thread's.

        The first 2^(ν−1) columns are the positive half of the codewords.

        Args:
            delta, signs: of each section, float32[L, n].
        """
        sections, dimension = signs.shape
        bank_size = self._bank_size(dimension)
        spectrum = _codebook_spectrum(bank_size, dimension)
        table = _workspace("table", (sections, bank_size, dimension))
        step = max(1, _PRODUCT_SIZE // (2 * spectrum.size))
        shape = (min(step, sections), bank_size, 2 * spectrum.shape[1])
        product = _workspace("product", shape).view(np.complex64)
        for start in range(0, sections, step):
            part = slice(start, start + step)
            flipped = np.fft.rfft(signs[part] * delta[part], axis=1)
            spectra = np.multiply(flipped[:, None], spectrum, out=product[: len(flipped)])
            table[part] = self.inverse_fft(spectra, dimension)
        return table.reshape(sections, -1)

    def _search(self, delta: Float32, signs: Float32, before: int | None) -> NDArray[np.int64]:
        """Viterbi: the registers of the path with the largest Σ_j ⟨δ_j · signs_j, c_j⟩: int64[L].

        The path begins after register ``before``, anywhere if None. A state is the ν − k bits that
        the next register keeps. Only the best score of each state is stored; the trace back finds
        again which of its 2^k predecessors it came from.
        """
        width, new = self.register_bits, self.new_bits
        states = 1 << (width - new)
        branches = 1 << new
        half = 1 << (width - 1)
        table = self._correlations(delta, signs)
        sections = len(table)
        score = _workspace("score", (2 * half,))
        positive = score[:half].reshape(-1, states)
        negative = score[half:].reshape(-1, states)
        best = _workspace("best", (sections + 1, states))
        best[0] = 0.0 if before is None else -np.inf
        if before is not None:
            best[0, before & (states - 1)] = 0.0
        # Codeword numbers read [new, register >> k]; dropping the register's top k bits leaves
        # the state [rest, new].
        kept = width - 2 * new
        for section in range(sections):
            row = table[section, :half].reshape(-1, states)
            np.add(best[section], row, out=positive)
            np.subtract(best[section], row, out=negative)
            merged = score.reshape(branches, branches, 1 << kept).max(axis=1)
            best[section + 1].reshape(1 << kept, branches)[:] = merged.T
        registers = np.empty(sections, dtype=np.int64)
        dropped = np.arange(branches, dtype=np.int64) << (width - new)
        state = int(np.argmax(best[sections]))
        for section in range(sections - 1, -1, -1):
            candidates = dropped | state
            number = self._codeword_number(candidates)
            correlation = table[section][number % half]
            correlation = np.where(number < half, correlation, -correlation)
            register = int(candidates[np.argmax(correlation + best[section][candidates >> new])])
            registers[section] = register
            state = register >> new
        return registers


class _Workspaces(threading.local):
    """Arrays that a thread uses again and again."""

    def __init__(self) -> None:
        self.arrays: dict[str, Float32] = {}


_WORKSPACES = _Workspaces()


def _workspace(name: str, shape: tuple[int, ...]) -> Float32:
    """This thread's float32 array ``name``, contiguous, holding whatever it held before.

    Fresh memory for tables of this size costs more, in page faults, than the search itself.
    """
    size = math.prod(shape)
    array = _WORKSPACES.arrays.get(name)
    if array is None or array.size < size:
        array = _WORKSPACES.arrays[name] = np.empty(size, dtype=np.float32)
    return array[:size].reshape(shape)


def _blocks(sections: range, size: int) -> Iterator[range]:
    """``sections``, at most ``size`` of them at a time."""
    for start in range(sections.start, sections.stop, size):
        yield range(start, min(start + size, sections.stop))


def _roots(sections: range, vectors: int) -> Float32:
    """√L of each vector, L how many of ``sections`` tell of it: float32[V, 1]."""
    whole, rest = divmod(len(sections), vectors)
    first = (np.arange(vectors) - sections.start) % vectors < rest
    return np.sqrt((whole + first).astype(np.float32))[:, None]


def _signs(noise: SharedNoise, sections: range, dimension: int) -> Float32:
    """±1, float32[L, n]: section j's from the noise's index j."""
    count = -(-dimension // 64)
    words = [noise.substream(section).words(0, count) for section in sections]
    return signs_of_words(np.stack(words), dimension)


CHANNEL_CODES: dict[int, TrellisCode] = {
    code.code_id: code
    for code in (
        TrellisCode(0, 12, 4, 9.29, 3.602),
        TrellisCode(1, 16, 8, 13.09, 7.391),
        TrellisCode(2, 16, 4, 13.07, 3.729),
        TrellisCode(3, 18, 4, 15.20, 3.766),
    )
}
"""The codes that a file's header can name. New ones may be appended; none may change."""
