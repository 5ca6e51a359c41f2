from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcodec.bitstream.crc import crc8, crc16, crc32


@pytest.mark.parametrize(("check", "bits"), [(crc8, 8), (crc16, 16), (crc32, 32)])
@given(data=st.binary(min_size=1, max_size=40), position=st.integers(0), burst=st.integers(1))
def test_bursts_no_longer_than_the_check_are_detected(
    check: Callable[[bytes], int], bits: int, data: bytes, position: int, burst: int
) -> None:
    pattern = burst % ((1 << bits) - 1) + 1
    value = int.from_bytes(data, "big") << bits
    damaged = value ^ pattern << position % (8 * len(data))
    size = len(data) + bits // 8
    assert check(damaged.to_bytes(size, "big")) != check(value.to_bytes(size, "big"))


@pytest.mark.parametrize("check", [crc8, crc16, crc32])
def test_zeros_do_not_pass_their_own_check(check: Callable[[bytes], int]) -> None:
    assert all(check(bytes(length)) != 0 for length in range(1, 100))
