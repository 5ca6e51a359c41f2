"""Push and pop of whole arrays of levels over constriction's ANS coder.

constriction (0.4, 0.5; ``Categorical`` with ``perfect=False``) turns float probabilities w_k into
C_k = ⌊s · Σ_{i<k} w_i⌋ + k with s = (2^24 − 256)/Σ w. Given ``tables.free_frequencies``, integers
that sum to 2^24 − 256, every partial sum is exact in float32, s is one, and the model that codes
is exactly ``tables.frequencies``: no rounding is left to differ between platforms or releases.
"""

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from diffcodec.coding.tables import free_frequencies
from diffcodec.errors import NumericMismatchError

# The coder starts from this state, not from zero. A decoder whose tables differ runs off the end
# of its words into state zero, where decoding could go on for ever and seem to end well.
_FIRST_STATE = 0xD1FC

# Rows of 256 float32 handed over at a time: 16 MiB.
_BLOCK_ROWS = 1 << 14


def _coder(words: NDArray[np.uint32]) -> Any:
    return constriction.stream.stack.AnsCoder(words)


def encode_levels(
    levels: NDArray[np.uint8], mean_grid: NDArray[np.integer], scale_index: int
) -> bytes:
    """Push ``levels``, uint8[N], under ``tables.frequencies(mean_grid, scale_index)``.

    The bytes are the coder's 32-bit words, little endian, the state's own last, without the zero
    bytes that end them: at most 3 bytes above ``tables.ideal_bits``.

    >>> encode_levels(np.array([3, 3, 4], np.uint8), np.array([48, 50, 60]), 60).hex()
    'd13145'
    """
    symbols = np.asarray(levels, dtype=np.int32).ravel()
    mean = np.asarray(mean_grid).ravel()
    if len(symbols) != len(mean):
        raise ValueError(f"{len(symbols)} levels but {len(mean)} means")
    model = constriction.stream.model.Categorical(perfect=False)
    coder = _coder(np.array([_FIRST_STATE], dtype=np.uint32))
    # A stack: what is pushed last is popped first.
    for start in reversed(range(0, len(symbols), _BLOCK_ROWS)):
        block = slice(start, start + _BLOCK_ROWS)
        coder.encode_reverse(symbols[block], model, free_frequencies(mean[block], scale_index))
    words = np.asarray(coder.get_compressed(), dtype=np.uint32)
    return words.astype("<u4").tobytes().rstrip(b"\0")


def decode_levels(
    payload: bytes, mean_grid: NDArray[np.integer], scale_index: int
) -> NDArray[np.uint8]:
    """Pop what ``encode_levels`` pushed: uint8[N] for N means.

    Raises NumericMismatchError if the coder does not end exactly in the state in which the encoder
    began: either the payload is damaged or a mean differs from the encoder's.
    """
    if payload.endswith(b"\0"):
        raise NumericMismatchError("expected a pixel payload that ends in no zero byte")
    mean = np.asarray(mean_grid).ravel()
    words = np.frombuffer(payload + bytes(-len(payload) % 4), dtype="<u4").astype(np.uint32)
    coder = _coder(words)
    model = constriction.stream.model.Categorical(perfect=False)
    levels = np.empty(len(mean), dtype=np.uint8)
    for start in range(0, len(mean), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        levels[block] = coder.decode(model, free_frequencies(mean[block], scale_index))
    rest = np.asarray(coder.get_compressed()).tolist()
    if rest != [_FIRST_STATE]:
        raise NumericMismatchError(
            f"expected the pixel coder to end in state {_FIRST_STATE:#x}, found "
            f"{len(rest)} words: the payload is damaged or the means are not the encoder's"
        )
    return levels
