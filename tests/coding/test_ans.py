"""Push and pop of levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.coding import ans
from diffcodec.coding.ans import decode_levels, encode_levels
from diffcodec.coding.tables import ideal_bits, round_means
from diffcodec.errors import NumericMismatchError


def _pixels(count: int, sigma: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    means = round_means(rng.uniform(-5, 260, count))
    noisy = np.rint(means / 16 + rng.normal(0, sigma, count))
    return np.clip(noisy, 0, 255).astype(np.uint8), means


def check_law(
    levels: np.ndarray, means: np.ndarray, scale_index: int, excess: float = 0.0005
) -> bytes:
    """Popping what was pushed restores the levels, at their ideal length and three bytes."""
    payload = encode_levels(levels, means, scale_index)
    np.testing.assert_array_equal(decode_levels(payload, means, scale_index), levels)
    assert 8 * len(payload) <= ideal_bits(levels, means, scale_index) * (1 + excess) + 24
    return payload


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 4080))), st.integers(0, 255))
def test_any_levels_under_any_means(pairs: list[tuple[int, int]], scale_index: int) -> None:
    check_law(
        np.array([level for level, _ in pairs], dtype=np.uint8),
        np.array([mean for _, mean in pairs], dtype=np.int32),
        scale_index,
        # Levels of the least frequency lose what a 32-bit word cannot resolve.
        excess=0.01,
    )


@pytest.mark.parametrize("scale_index", [0, 60, 120, 255])
def test_a_tile(scale_index: int) -> None:
    check_law(*_pixels(3072, 2.0), scale_index)


def test_the_first_and_last_levels_are_reached_from_anywhere() -> None:
    levels = np.tile(np.array([0, 255], dtype=np.uint8), 64)
    means = np.repeat(np.arange(0, 4080, 64, dtype=np.int32), 2)
    for scale_index in (0, 128, 255):
        check_law(levels, means, scale_index, excess=0.01)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, means = _pixels(1000, 3.0)
    whole = encode_levels(levels, means, 130)
    monkeypatch.setattr(ans, "_BLOCK_ROWS", 77)
    assert encode_levels(levels, means, 130) == whole
    np.testing.assert_array_equal(decode_levels(whole, means, 130), levels)


def test_compressed_words_are_pinned() -> None:
    levels = np.array([0, 3, 3, 4, 128, 255, 250, 17], dtype=np.uint8)
    means = np.array([5, 48, 50, 60, 2047, 4080, 4033, 260], dtype=np.int32)
    assert encode_levels(levels, means, 60).hex() == "2fca6246670301"
    assert encode_levels(levels, means, 200).hex() == "ca8b14dbc2d11f"


def test_nothing_costs_two_bytes() -> None:
    assert len(check_law(np.zeros(0, np.uint8), np.zeros(0, np.int32), 0)) == 2


def test_a_mean_one_step_off_is_noticed() -> None:
    levels, means = _pixels(3072, 2.0, seed=1)
    payload = encode_levels(levels, means, 120)
    rng = np.random.default_rng(2)
    for position in rng.integers(0, 3072, 100):
        other = means.copy()
        other[position] += 1 if other[position] < 4080 else -1
        with pytest.raises(NumericMismatchError, match="means"):
            decode_levels(payload, other, 120)


def test_another_scale_or_damage_is_noticed() -> None:
    levels, means = _pixels(500, 2.0, seed=3)
    payload = encode_levels(levels, means, 120)
    with pytest.raises(NumericMismatchError):
        decode_levels(payload, means, 121)
    with pytest.raises(NumericMismatchError):
        decode_levels(payload[:-1], means, 120)
    with pytest.raises(NumericMismatchError):
        decode_levels(b"", means, 120)
    with pytest.raises(NumericMismatchError, match="zero byte"):
        decode_levels(payload + b"\0", means, 120)
    with pytest.raises(ValueError, match="means"):
        encode_levels(levels[1:], means, 120)
