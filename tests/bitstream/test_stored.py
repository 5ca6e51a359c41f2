from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.bitstream.container import Segment
from diffcodec.bitstream.stored import pack_pixels, unpack_pixels
from diffcodec.errors import BitstreamError

NAME = "test.dfc"


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (32, 32, 3)])
def test_unpack_restores_what_was_packed(
    drawn_image: Callable[..., NDArray[np.uint8]], shape: tuple[int, int, int]
) -> None:
    pixels = drawn_image(*shape, 0)
    payload = Segment(pack_pixels(pixels), complete=True)
    np.testing.assert_array_equal(unpack_pixels(payload, pixels.size, NAME), pixels.ravel())


def test_noise_costs_a_few_bytes_more_than_itself() -> None:
    noise = np.frombuffer(np.random.Philox(1).random_raw(384).tobytes(), dtype=np.uint8)
    assert len(pack_pixels(noise.reshape(32, 32, 3))) <= noise.size + 16


def test_every_prefix_gives_the_first_values(
    drawn_image: Callable[..., NDArray[np.uint8]],
) -> None:
    pixels = drawn_image(16, 16, 3, 0)
    packed = pack_pixels(pixels)
    for length in range(len(packed)):
        found = unpack_pixels(Segment(packed[:length], complete=False), pixels.size, NAME)
        np.testing.assert_array_equal(found, pixels.ravel()[: found.size])


@pytest.mark.parametrize(("stored", "expected"), [(12, 11), (11, 12), (100_000, 1)])
def test_another_number_of_values_is_refused(stored: int, expected: int) -> None:
    payload = Segment(pack_pixels(np.zeros((stored, 1, 1), dtype=np.uint8)), complete=True)
    with pytest.raises(BitstreamError, match=f"expected {expected} stored values"):
        unpack_pixels(payload, expected, NAME)


def test_what_is_no_deflate_stream_is_refused() -> None:
    with pytest.raises(BitstreamError, match="expected deflated pixels"):
        unpack_pixels(Segment(b"\xff\xff\xff", complete=False), 3, NAME)
