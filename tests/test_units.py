import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcodec.units import (
    NATS_PER_BIT,
    bits_per_dimension,
    bits_per_pixel,
    bits_to_nats,
    nats_to_bits,
)


@given(st.floats(-1e9, 1e9))
def test_nats_and_bits_are_inverse(bits: float) -> None:
    assert nats_to_bits(bits_to_nats(bits)) == pytest.approx(bits)


def test_a_fair_coin_is_one_bit() -> None:
    assert nats_to_bits(math.log(2.0)) == pytest.approx(1.0)
    assert bits_to_nats(1.0) == pytest.approx(NATS_PER_BIT)


def test_arrays_convert_elementwise() -> None:
    bits = np.array([0.0, 1.0, 8.0])
    np.testing.assert_allclose(nats_to_bits(bits * NATS_PER_BIT), bits)


def test_a_raw_rgb_image_has_8_bits_a_dimension_and_24_a_pixel() -> None:
    bits = 8.0 * 32 * 32 * 3
    assert bits_per_dimension(bits, 32 * 32 * 3) == pytest.approx(8.0)
    assert bits_per_pixel(bits, 32 * 32) == pytest.approx(24.0)
