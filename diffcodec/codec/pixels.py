"""The last stage: exact pixels under the discretized Gaussian around x̂_0 (DDPM, eq. 13).

Payload: one byte, the scale index, then the ANS coder's bytes. Means are rounded to a grid of 1/16
level, so the probabilities are a function of integers (docs/format.md, Numeric contract).
"""

import numpy as np
from numpy.typing import NDArray

from diffcodec.bitstream.container import LAST_STAGE_SEGMENT
from diffcodec.coding.ans import decode_levels, encode_levels
from diffcodec.coding.tables import best_scale_index, ideal_bits, round_means
from diffcodec.diffusion.process import HALF_RANGE
from diffcodec.errors import BitstreamError, NumericMismatchError


def encode_pixels(pixels: NDArray[np.uint8], estimate: NDArray[np.float64]) -> tuple[bytes, float]:
    """The payload for ``pixels`` uint8 [H, W, C], and its ideal length in bits.

    Args:
        estimate: x̂_0 in [−1, 1], float64 [H, W, C].
    """
    levels, means = pixels.ravel(), _means(estimate)
    scale_index = best_scale_index(levels, means)
    payload = bytes([scale_index]) + encode_levels(levels, means, scale_index)
    return payload, ideal_bits(levels, means, scale_index)


def decode_pixels(payload: bytes, estimate: NDArray[np.float64], name: str) -> NDArray[np.uint8]:
    """The pixels, uint8 of the shape of ``estimate``.

    Raises:
        BitstreamError: the payload is empty.
        NumericMismatchError: the decoder's x̂_0 is not the encoder's.
    """
    if not payload:
        raise BitstreamError(f"{name}: expected coded pixels, found an empty last stage")
    try:
        levels = decode_levels(payload[1:], _means(estimate), payload[0])
    except NumericMismatchError as error:
        raise NumericMismatchError(
            f"{name}: numeric mismatch at segment {LAST_STAGE_SEGMENT}, the last stage: {error}"
        ) from error
    return levels.reshape(estimate.shape)


def _means(estimate: NDArray[np.float64]) -> NDArray[np.int32]:
    return round_means((estimate.ravel() + 1.0) * HALF_RANGE)
