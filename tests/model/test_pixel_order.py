import numpy as np
import pytest

from diffcodec.model.pixel_order import RANKS, group_starts, pixel_ranks


@pytest.mark.parametrize("side", [4, 16, 32])
def test_every_rank_is_a_sixteenth_of_a_tile(side: int) -> None:
    ranks = pixel_ranks(side)
    assert ranks.shape == (side, side)
    assert (np.bincount(ranks.ravel(), minlength=RANKS) == side * side // RANKS).all()


@pytest.mark.parametrize("known", [1, 4, 8])
def test_known_pixels_are_spread_evenly(known: int) -> None:
    # As many in each of the windows as they can share out: a power of two has equal windows.
    place = pixel_ranks(16) < known
    window = {1: 4, 4: 2, 8: 2}[known]
    counts = place.reshape(16 // window, window, 16 // window, window).sum(axis=(1, 3))
    assert counts.min() == counts.max() == known * window**2 // RANKS


def test_a_side_that_is_no_multiple_of_four() -> None:
    np.testing.assert_array_equal(pixel_ranks(6), pixel_ranks(8)[:6, :6])


@pytest.mark.parametrize("groups", range(1, RANKS + 1))
def test_groups_are_of_nearly_equal_size(groups: int) -> None:
    starts = group_starts(groups)
    assert (starts[0], starts[-1], len(starts)) == (0, RANKS, groups + 1)
    sizes = np.diff(starts)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("groups", [0, 17, -1])
def test_there_are_no_other_numbers_of_groups(groups: int) -> None:
    with pytest.raises(ValueError, match="1 to 16 groups"):
        group_starts(groups)
