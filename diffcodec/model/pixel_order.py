"""The order in which the last stage codes pixels: coarse to fine, in up to 16 groups.

Order-agnostic autoregressive diffusion (Hoogeboom et al. 2021, arXiv:2110.02037) with the one order
that a codec needs: ranks of a 4×4 ordered dither (Bayer 1973), so that at every rank the known
pixels are spread evenly over the image. Any number of groups up to 16 is a coarsening of it.
"""

import numpy as np
from numpy.typing import NDArray

RANKS = 16
_PERIOD = 4
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])


def pixel_ranks(side: int) -> NDArray[np.int64]:
    """The rank 0…15 of every pixel of a tile, int64 [side, side].

    >>> pixel_ranks(4)[0].tolist()
    [0, 8, 2, 10]
    """
    repeats = -(-side // _PERIOD)
    return np.tile(_BAYER, (repeats, repeats))[:side, :side].astype(np.int64)


def group_starts(groups: int) -> list[int]:
    """First rank of each of ``groups`` groups of nearly equal size, and the end, RANKS.

    >>> group_starts(3)
    [0, 5, 11, 16]

    Raises:
        ValueError: not 1 to 16 groups.
    """
    if not 1 <= groups <= RANKS:
        raise ValueError(f"expected 1 to {RANKS} groups of pixels, found {groups}")
    return [(2 * RANKS * group + groups) // (2 * groups) for group in range(groups)] + [RANKS]
