"""Push and pop of whole arrays of levels over constriction's ANS coder.

constriction (0.4, 0.5; ``Categorical`` with ``perfect=False``) turns float probabilities w_k into
C_k = ⌊s · Σ_{i<k} w_i⌋ + k with s = (2^24 − 256)/Σ w. Given ``tables.free_frequencies``, integers
that sum to 2^24 − 256, every partial sum is exact in float32, s is one, and the model that codes
is exactly ``tables.frequencies``: no rounding is left to differ between platforms or releases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from diffcodec.coding.tables import free_frequencies, shifted
from diffcodec.errors import NumericMismatchError

# The coder starts from this state, not from zero. A decoder whose tables differ runs off the end
# of its words into state zero, where decoding could go on for ever and seem to end well.
_FIRST_STATE = 0xD1FC

# Rows of 256 float32 handed over at a time: 16 MiB.
_BLOCK_ROWS = 1 << 14


def _coder(words: NDArray[np.uint32]) -> Any:
    return constriction.stream.stack.AnsCoder(words)


@dataclass(frozen=True)
class LevelRun:
    """Means of some levels, int[N] in sixteenths of a level, and their scale indices, int[N]."""

    mean_grid: NDArray[np.integer]
    scale_index: NDArray[np.integer]

    def with_offset(self, offset: int) -> "LevelRun":
        """The same means, scales moved by ``offset`` (`tables.shifted`)."""
        return LevelRun(self.mean_grid, shifted(self.scale_index, offset))


def encode_levels(runs: Sequence[tuple[NDArray[np.uint8], LevelRun]]) -> bytes:
    """Push all levels, uint8[N] a run, so that a `LevelDecoder` pops them in the runs' order.

    The bytes are the coder's 32-bit words, little endian, the state's own last, without the zero
    bytes that end them: at most 3 bytes above ``tables.ideal_bits``.

    >>> run = LevelRun(np.array([48, 50, 60]), np.full(3, 60))
    >>> encode_levels([(np.array([3, 3, 4], np.uint8), run)]).hex()
    'd13145'
    """
    model = constriction.stream.model.Categorical(perfect=False)
    coder = _coder(np.array([_FIRST_STATE], dtype=np.uint32))
    # A stack: what is pushed last is popped first.
    for levels, run in reversed(runs):
        symbols = np.asarray(levels, dtype=np.int32).ravel()
        if len(symbols) != len(run.mean_grid):
            raise ValueError(f"{len(symbols)} levels but {len(run.mean_grid)} means")
        for start in reversed(range(0, len(symbols), _BLOCK_ROWS)):
            block = slice(start, start + _BLOCK_ROWS)
            coder.encode_reverse(symbols[block], model, _rows(run, block))
    words = np.asarray(coder.get_compressed(), dtype=np.uint32)
    return words.astype("<u4").tobytes().rstrip(b"\0")


class LevelDecoder:
    """Pops what `encode_levels` pushed, run by run, each as soon as its means are known."""

    def __init__(self, payload: bytes) -> None:
        """Raises NumericMismatchError for a payload that no encoder makes."""
        if payload.endswith(b"\0"):
            raise NumericMismatchError("expected a pixel payload that ends in no zero byte")
        words = np.frombuffer(payload + bytes(-len(payload) % 4), dtype="<u4").astype(np.uint32)
        self._coder = _coder(words)

    def pop(self, run: LevelRun) -> NDArray[np.uint8]:
        """The next run's levels, uint8[N]."""
        model = constriction.stream.model.Categorical(perfect=False)
        levels = np.empty(len(run.mean_grid), dtype=np.uint8)
        for start in range(0, len(levels), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            levels[block] = self._coder.decode(model, _rows(run, block))
        return levels

    def finish(self) -> None:
        """Check the end.

        Raises NumericMismatchError if the coder is not exactly in the state in which the encoder
        began: either the payload is damaged or a mean or scale differs from the encoder's.
        """
        rest = np.asarray(self._coder.get_compressed()).tolist()
        if rest != [_FIRST_STATE]:
            raise NumericMismatchError(
                f"expected the pixel coder to end in state {_FIRST_STATE:#x}, found "
                f"{len(rest)} words: the payload is damaged or the means are not the encoder's"
            )


def _rows(run: LevelRun, block: slice) -> NDArray[np.float32]:
    return free_frequencies(run.mean_grid[block], run.scale_index[block])
