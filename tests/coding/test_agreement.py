import numpy as np
import pytest

from diffcodec.coding.agreement import SHIFTS, rounded, safest_shifts


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


def smallest_margin(positions: np.ndarray, shift: float) -> float:
    """How far the position that is nearest to one lies from an edge of the shifted grid."""
    moved = positions + shift
    return float(np.abs(moved - np.floor(moved) - 0.5).min())


def test_shifts_are_exact_and_even() -> None:
    np.testing.assert_array_equal(np.diff(SHIFTS), 2.0**-8)
    np.testing.assert_array_equal(SHIFTS, -SHIFTS[::-1])
    assert not SHIFTS.flags.writeable


@pytest.mark.parametrize("count", [1, 3])
def test_no_other_shift_keeps_positions_further_from_the_edges(
    count: int, rng: np.random.Generator
) -> None:
    positions = rng.normal(0.0, 50.0, 700)
    owners = rng.integers(0, count, 700)
    found = safest_shifts(positions, owners, count)
    assert found.shape == (count,)
    for owner, number in enumerate(found):
        margins = [smallest_margin(positions[owners == owner], shift) for shift in SHIFTS]
        assert margins[number] == pytest.approx(max(margins))


def test_what_differs_by_less_than_the_margin_rounds_alike(rng: np.random.Generator) -> None:
    positions = rng.normal(0.0, 50.0, 3000)
    (number,) = safest_shifts(positions, np.zeros(3000, dtype=int), 1)
    margin = smallest_margin(positions, SHIFTS[number])
    # Of so many positions the best of 256 shifts leaves three times what one leaves.
    assert margin > 3e-4
    others = positions + rng.uniform(-margin, margin, 3000) * 0.999
    here, there = (rounded(values, SHIFTS[number]) for values in (positions, others))
    np.testing.assert_array_equal(here, there)


def test_owners_of_nothing_and_of_one_position() -> None:
    found = safest_shifts(np.array([4.25]), np.array([1]), 3)
    assert found[0] == found[2] == 0
    assert abs(4.25 + SHIFTS[found[1]] - 4.0) <= 2.0**-9
    assert safest_shifts(np.empty(0), np.empty(0, dtype=int), 2).tolist() == [0, 0]
