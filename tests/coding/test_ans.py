"""Push and pop of levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.coding import ans
from diffcodec.coding.ans import LevelDecoder, LevelRun, encode_levels
from diffcodec.coding.tables import ideal_bits, round_means
from diffcodec.errors import NumericMismatchError, TruncatedStreamError

Coded = tuple[np.ndarray, LevelRun]


def _run(means: np.ndarray, scale_index: int | np.ndarray) -> LevelRun:
    """``means`` with one scale for all of them, or one each."""
    return LevelRun(means, np.broadcast_to(scale_index, np.shape(means)))


def _pixels(count: int, sigma: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    means = round_means(rng.uniform(-5, 260, count))
    noisy = np.rint(means / 16 + rng.normal(0, sigma, count))
    return np.clip(noisy, 0, 255).astype(np.uint8), means


def decode(payload: bytes, *runs: LevelRun) -> list[np.ndarray]:
    """All runs, and the check of the end."""
    decoder = LevelDecoder(payload)
    levels = [decoder.pop(run) for run in runs]
    decoder.finish()
    return levels


def check_law(*coded: Coded, excess: float = 0.0005) -> bytes:
    """Popping what was pushed restores the levels.

    At their ideal length, the 16 bits of the coder's first state, and at most 31 to fill a word.
    """
    payload = encode_levels(coded)
    popped = decode(payload, *(run for _, run in coded))
    for (levels, _), found in zip(coded, popped, strict=True):
        np.testing.assert_array_equal(found, levels)
    ideal = sum(ideal_bits(levels, run.mean_grid, run.scale_index) for levels, run in coded)
    assert 8 * len(payload) <= ideal * (1 + excess) + 16 + 31
    return payload


runs_of_levels = st.lists(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 4080), st.integers(0, 255)), max_size=9),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(runs_of_levels)
def test_any_runs_of_levels_under_any_means_and_scales(
    runs: list[list[tuple[int, int, int]]],
) -> None:
    coded = []
    for triples in runs:
        columns = np.array(triples, dtype=np.int64).reshape(-1, 3).T
        coded.append((columns[0].astype(np.uint8), LevelRun(columns[1], columns[2])))
    # Levels of the least frequency lose what a 32-bit word cannot resolve.
    check_law(*coded, excess=0.01)


@pytest.mark.parametrize("scale_index", [0, 60, 120, 255])
def test_a_tile(scale_index: int) -> None:
    levels, means = _pixels(3072, 2.0)
    check_law((levels, _run(means, scale_index)))


def test_runs_with_a_scale_for_each_level() -> None:
    rng = np.random.default_rng(5)
    coded = []
    for run in range(6):
        levels, means = _pixels(500, 3.0, seed=run)
        coded.append((levels, LevelRun(means, rng.integers(60, 220, 500))))
    payload = check_law(*coded)
    # Where one run ends and the next begins does not show in the bytes.
    levels = np.concatenate([levels for levels, _ in coded])
    means = np.concatenate([run.mean_grid for _, run in coded])
    scales = np.concatenate([run.scale_index for _, run in coded])
    assert encode_levels([(levels, LevelRun(means, scales))]) == payload


def test_a_run_may_depend_on_the_levels_of_the_run_before() -> None:
    levels, means = _pixels(200, 2.0)
    second = np.clip(levels.astype(int) + 3, 0, 255).astype(np.uint8)
    payload = encode_levels(
        [(levels, _run(means, 120)), (second, _run(16 * levels.astype(int), 130))]
    )
    decoder = LevelDecoder(payload)
    popped = decoder.pop(_run(means, 120))
    np.testing.assert_array_equal(decoder.pop(_run(16 * popped.astype(int), 130)), second)
    decoder.finish()


def test_the_first_and_last_levels_are_reached_from_anywhere() -> None:
    levels = np.tile(np.array([0, 255], dtype=np.uint8), 64)
    means = np.repeat(np.arange(0, 4080, 64, dtype=np.int32), 2)
    for scale_index in (0, 128, 255):
        check_law((levels, _run(means, scale_index)), excess=0.01)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, means = _pixels(1000, 3.0)
    run = LevelRun(means, np.arange(1000) % 256)
    whole = encode_levels([(levels, run)])
    monkeypatch.setattr(ans, "_BLOCK_ROWS", 77)
    assert encode_levels([(levels, run)]) == whole
    np.testing.assert_array_equal(decode(whole, run)[0], levels)


def test_compressed_words_are_pinned() -> None:
    levels = np.array([0, 3, 3, 4, 128, 255, 250, 17], dtype=np.uint8)
    means = np.array([5, 48, 50, 60, 2047, 4080, 4033, 260], dtype=np.int32)
    assert encode_levels([(levels, _run(means, 60))]).hex() == "0103674662ca2f"
    assert encode_levels([(levels, _run(means, 200))]).hex() == "1fd1c2db148bca"


def test_nothing_costs_two_bytes() -> None:
    nothing = (np.zeros(0, np.uint8), _run(np.zeros(0, np.int32), 0))
    assert len(check_law(nothing)) == len(check_law(nothing, nothing)) == len(check_law()) == 2


def test_an_offset_moves_the_scales_and_nothing_else() -> None:
    run = LevelRun(np.array([0, 16, 4080]), np.array([0, 100, 255]))
    moved = run.with_offset(2)
    assert moved.scale_index.tolist() == [8, 108, 255]
    np.testing.assert_array_equal(moved.mean_grid, run.mean_grid)
    assert run.with_offset(-1).scale_index.tolist() == [0, 96, 251]


def test_a_mean_or_scale_one_step_off_is_noticed() -> None:
    levels, means = _pixels(3072, 2.0, seed=1)
    run = _run(means, 120)
    payload = encode_levels([(levels, run)])
    rng = np.random.default_rng(2)
    for position in rng.integers(0, 3072, 50):
        other = means.copy()
        other[position] += 1 if other[position] < 4080 else -1
        with pytest.raises(NumericMismatchError, match="means"):
            decode(payload, _run(other, 120))
        scales = run.scale_index.copy()
        # A whole octave: one step of the scale can leave a level's frequencies almost as they were.
        scales[position] += 24
        with pytest.raises(NumericMismatchError, match="means"):
            decode(payload, LevelRun(means, scales))


def test_another_scale_or_damage_is_noticed() -> None:
    levels, means = _pixels(500, 2.0, seed=3)
    run = _run(means, 120)
    payload = encode_levels([(levels, run)])
    with pytest.raises(NumericMismatchError):
        decode(payload, _run(means, 121))
    with pytest.raises(NumericMismatchError):
        decode(payload[:-1], run)
    with pytest.raises(NumericMismatchError):
        decode(b"", run)
    with pytest.raises(NumericMismatchError, match="zero byte"):
        decode(b"\0" + payload, run)
    # Levels that are left over, and levels that were never pushed.
    with pytest.raises(NumericMismatchError):
        decode(payload, _run(means[:-1], 120))
    with pytest.raises(NumericMismatchError):
        decode(payload, run, run)
    with pytest.raises(ValueError, match="means"):
        encode_levels([(levels[1:], run)])


def test_a_beginning_gives_its_runs_and_says_where_it_ends() -> None:
    coded = []
    for run in range(5):
        levels, means = _pixels(40 + 60 * run, 3.0, seed=run)
        coded.append((levels, _run(means, 140)))
    payload = encode_levels(coded)
    whole, needed = LevelDecoder(payload), []
    for levels, run in coded:
        np.testing.assert_array_equal(whole.pop(run), levels)
        needed.append(whole.consumed_bytes)
    whole.finish()
    assert needed == sorted(needed)
    assert needed[-1] == len(payload)
    for length in range(len(payload)):
        decoder = LevelDecoder(payload[:length], len(payload))
        for (levels, run), bytes_needed in zip(coded, needed, strict=True):
            if length < bytes_needed:
                with pytest.raises(TruncatedStreamError):
                    decoder.pop(run)
                break
            np.testing.assert_array_equal(decoder.pop(run), levels)
            assert decoder.consumed_bytes == bytes_needed
