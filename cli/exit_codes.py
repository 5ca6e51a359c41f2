"""What a command's exit code says, and the one line that goes with it (docs/format.md, Exit codes).

0 success; 1 failure; 2 usage; 3 damaged stream or wrong model; 4 numeric mismatch; 5 truncated, of
``verify`` alone; 129, 130, 143 hung up, interrupted, terminated.
"""

from collections.abc import Iterable

from diffcodec.errors import (
    BitstreamError,
    DiffcodecError,
    ModelMismatchError,
    NumericMismatchError,
    PixelLimitError,
)

SUCCESS, FAILURE, USAGE, DAMAGED, NUMERIC_MISMATCH, TRUNCATED = range(6)
HUNG_UP, INTERRUPTED, TERMINATED = 129, 130, 143

_GRAVEST_FIRST = (DAMAGED, FAILURE, NUMERIC_MISMATCH, TRUNCATED, SUCCESS)


def of_error(error: BaseException) -> int | None:
    """The exit code of an error that the user can act on; ``None`` for any other."""
    if isinstance(error, NumericMismatchError):
        return NUMERIC_MISMATCH
    if isinstance(error, PixelLimitError):
        return FAILURE
    if isinstance(error, BitstreamError | ModelMismatchError):
        return DAMAGED
    if isinstance(error, DiffcodecError | OSError) or _is_out_of_memory(error):
        return FAILURE
    return None


def gravest(codes: Iterable[int]) -> int:
    """The code for several files: damage before failure, numeric mismatch and truncation.

    >>> gravest([SUCCESS, TRUNCATED, DAMAGED])
    3
    """
    return min(codes, key=_GRAVEST_FIRST.index, default=SUCCESS)


def explain(error: BaseException) -> str:
    """``file: reason``, without errno's number."""
    if _is_out_of_memory(error):
        return "not enough memory"
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error) or type(error).__name__
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*names, reason])


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's and NumPy's error, and the one that torch words instead of naming."""
    worded = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return worded or isinstance(error, MemoryError)
