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
from diffcodec.errors import NumericMismatchError, TruncatedStreamError

# The coder starts from this state, not from zero. A decoder whose tables differ runs off the end
# of its words into state zero, where decoding could go on for ever and seem to end well.
_FIRST_STATE = 0xD1FC

_WORD_BYTES = 4
# The state of a coder that has not run out of words is 2^32 or more.
_STATE_WORDS = 2

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

    The bytes are the coder's 32-bit words in the order in which they are popped, the state's own
    first, big endian, without the zero bytes that begin them: at most 3 bytes above
    ``tables.ideal_bits``. A prefix of them gives the first levels.

    >>> run = LevelRun(np.array([48, 50, 60]), np.full(3, 60))
    >>> encode_levels([(np.array([3, 3, 4], np.uint8), run)]).hex()
    '4531d1'
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
    return words[::-1].astype(">u4").tobytes().lstrip(b"\0")


class LevelDecoder:
    """Pops what `encode_levels` pushed, run by run, each as soon as its means are known."""

    def __init__(self, payload: bytes, length: int | None = None) -> None:
        """From a whole payload, or from the beginning of one.

        Args:
            length: bytes of the whole payload; those of ``payload`` if None.

        Raises:
            NumericMismatchError: no encoder makes such a payload.
        """
        if payload.startswith(b"\0"):
            raise NumericMismatchError("expected a pixel payload that begins with no zero byte")
        self._length = len(payload) if length is None else length
        # The first word lacks its zero bytes; a last one that is cut tells nothing yet.
        padded = bytes(-self._length % _WORD_BYTES) + payload
        whole = len(padded) // _WORD_BYTES
        self._missing_words = -(-self._length // _WORD_BYTES) - whole
        words = np.frombuffer(padded, dtype=">u4", count=whole)[::-1].astype(np.uint32)
        self._coder = _coder(words)

    @property
    def consumed_bytes(self) -> int:
        """Length of the shortest beginning of the payload that gives all that has been popped."""
        rest = max(0, int(self._coder.num_words()) - _STATE_WORDS)
        return self._length - _WORD_BYTES * (self._missing_words + rest)

    def pop(self, run: LevelRun) -> NDArray[np.uint8]:
        """The next run's levels, uint8[N].

        Raises:
            TruncatedStreamError: what is there of the payload does not tell all of them.
        """
        model = constriction.stream.model.Categorical(perfect=False)
        levels = np.empty(len(run.mean_grid), dtype=np.uint8)
        for start in range(0, len(levels), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            levels[block] = self._coder.decode(model, _rows(run, block))
        # A state that should have been filled up, and was not, never grows again.
        if self._missing_words and self._coder.num_words() < _STATE_WORDS:
            raise TruncatedStreamError("expected more of the coded pixels, found their end")
        return levels

    def finish(self) -> None:
        """Check the end of a whole payload.

        Raises:
            NumericMismatchError: the coder is not exactly in the state in which the encoder began:
                either the payload is damaged or a mean or scale differs from the encoder's.
        """
        rest = np.asarray(self._coder.get_compressed()).tolist()
        if rest != [_FIRST_STATE]:
            raise NumericMismatchError(
                f"expected the pixel coder to end in state {_FIRST_STATE:#x}, found "
                f"{len(rest)} words: the payload is damaged or the means are not the encoder's"
            )


def _rows(run: LevelRun, block: slice) -> NDArray[np.float32]:
    return free_frequencies(run.mean_grid[block], run.scale_index[block])
