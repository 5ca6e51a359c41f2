import numpy as np
import pytest

from diffcodec.codec.pixels import decode_pixels, encode_pixels
from diffcodec.errors import BitstreamError, NumericMismatchError

RANDOM = np.random.default_rng(0)
ESTIMATE = RANDOM.uniform(-1.0, 1.0, (9, 7, 3))
NEAR = np.clip(np.rint((ESTIMATE + 1.0) * 127.5 + RANDOM.normal(0, 2, ESTIMATE.shape)), 0, 255)
PIXELS = NEAR.astype(np.uint8)


def test_pixels_come_back_at_nearly_the_ideal_length() -> None:
    payload, ideal_bits = encode_pixels(PIXELS, ESTIMATE)
    np.testing.assert_array_equal(decode_pixels(payload, ESTIMATE, "a.dfc"), PIXELS)
    # A byte for the scale, and less than a word of the coder's.
    assert 0 <= 8 * len(payload) - ideal_bits <= 8 + 32


def test_means_agree_although_the_estimate_differs_within_their_grid() -> None:
    payload, _ = encode_pixels(PIXELS, np.round(ESTIMATE, 2))
    nudged = np.round(ESTIMATE, 2) + 1e-9
    np.testing.assert_array_equal(decode_pixels(payload, nudged, "a.dfc"), PIXELS)


def test_another_estimate_is_a_numeric_mismatch_that_names_the_file() -> None:
    payload, _ = encode_pixels(PIXELS, ESTIMATE)
    other = ESTIMATE.copy()
    other[0, 0, 0] += 0.01
    with pytest.raises(NumericMismatchError, match=r"^a\.dfc: "):
        decode_pixels(payload, other, "a.dfc")


def test_an_empty_payload_is_refused() -> None:
    with pytest.raises(BitstreamError, match=r"^a\.dfc: .*empty"):
        decode_pixels(b"", ESTIMATE, "a.dfc")
