"""Randomness that both ends reproduce: Philox words and a written-down map to floats.

The words are Philox4x64-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as
1, 2, 3"), taken raw. NumPy's sampling routines are never used: their streams may change.
"""

import math
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcodec.coding.gaussian import unit_variance_steps

_WORD_LIMIT = 1 << 64
STEPS_PER_UNIT = 1 << 20
"""Normal variates are integers in units of 1/STEPS_PER_UNIT before they become floats."""


@dataclass(frozen=True)
class SharedNoise:
    """A family of 2^64 streams of shared random words.

    Philox's key is (``domain``, ``index``), each below 2^64: ``domain`` says what the noise is
    for, ``index`` which one of its kind (a packet, say). Its counter, least significant word
    first, is (block, stream, 0, 0) with block = 1, 2, 3, …; each block gives four words.

    >>> SharedNoise(domain=1).substream(7).words(stream=0, count=2).tolist()
    [16998522192167824979, 585780954699563090]
    """

    domain: int
    index: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.domain < _WORD_LIMIT and 0 <= self.index < _WORD_LIMIT):
            raise ValueError(f"domain and index must be 64-bit words: {self}")

    def substream(self, index: int) -> "SharedNoise":
        """The noise of the same domain with another ``index``."""
        return replace(self, index=index)

    def words(self, stream: int, count: int) -> NDArray[np.uint64]:
        """The first ``count`` words of ``stream``: uint64[count]."""
        if not 0 <= stream < _WORD_LIMIT:
            raise ValueError(f"stream must be a 64-bit word, not {stream}")
        return _GENERATOR.words((self.domain, self.index), stream, count)

    def signs(self, stream: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """±1 uniformly, float32 of ``shape`` in C order.

        Element i is −1 where bit i mod 64 (0 the least significant) of word ⌊i/64⌋ is set.
        """
        count = math.prod(shape)
        return signs_of_words(self.words(stream, -(-count // 64)), count).reshape(shape)

    def normal_steps(self, stream: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """N(0, 1) in whole steps of 2^−20: int32 of ``shape`` in C order.

        Word w gives elements 2w, from its low 32 bits h, and 2w + 1, from its high 32 bits: the
        entries (h mod 2^12) and (⌊h/2^12⌋ mod 2^12) of ``unit_variance_steps()``, added.
        """
        count = math.prod(shape)
        halves = self.words(stream, -(-count // 2)).astype("<u8").view("<u4")[:count]
        table = unit_variance_steps()
        steps: NDArray[np.int32] = table[halves & 0xFFF]
        steps += table[(halves >> 12) & 0xFFF]
        return steps.reshape(shape)

    def normal(self, stream: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """N(0, 1) as float32 of ``shape``: ``normal_steps`` times 2^−20, exactly."""
        normal = self.normal_steps(stream, shape).astype(np.float32)
        normal *= 1.0 / STEPS_PER_UNIT
        return normal


def signs_of_words(words: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """`SharedNoise.signs` of words [..., W] already drawn: float32[..., count], count ≤ 64 W."""
    octets = words.astype("<u8", copy=False).view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=count, bitorder="little")
    signs = bits.astype(np.float32)
    signs *= -2.0
    signs += 1.0
    return signs


class _Generator(threading.local):
    """A thread's Philox, whose state is set for every stream: constructing one takes far longer."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0, counter=0)
        self._state: Any = self._philox.state

    def words(self, key: tuple[int, int], stream: int, count: int) -> NDArray[np.uint64]:
        # The remembered state has nothing buffered: the first word begins a block.
        self._state["state"]["key"][:] = key
        self._state["state"]["counter"][1] = stream
        self._philox.state = self._state
        return np.asarray(self._philox.random_raw(count), dtype=np.uint64)


_GENERATOR = _Generator()
