from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.codec.tiles import TileLayout, deinterleave, interleave
from diffcodec.diffusion.process import signal_to_levels

Pixels = NDArray[np.uint8]
Float64 = NDArray[np.float64]
SIZES = [(1, 1), (16, 16), (17, 5), (32, 33), (20, 48)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_join_undoes_split(
    size: tuple[int, int], channels: int, drawn_image: Callable[..., Pixels]
) -> None:
    pixels = drawn_image(*size, channels, seed=1)
    layout = TileLayout(*size, channels, side=16)
    tiles = layout.split(pixels)
    assert tiles.shape == (layout.count, 3, 16, 16)
    assert tiles.dtype == np.float64
    np.testing.assert_array_equal(signal_to_levels(layout.join(tiles)), pixels)


def test_tiles_are_counted_row_by_row_and_padded_with_their_edges() -> None:
    pixels = np.arange(3 * 5, dtype=np.uint8).reshape(3, 5, 1).repeat(3, axis=2)
    layout = TileLayout(3, 5, 3, side=2)
    tiles = signal_to_levels(layout.split(pixels))
    assert (layout.rows, layout.columns, layout.count, layout.tile_dimensions) == (2, 3, 6, 12)
    assert tiles[1, 0].tolist() == [[2, 3], [7, 8]]
    assert tiles[2, 0].tolist() == [[4, 4], [9, 9]]
    assert tiles[5, 2].tolist() == [[14, 14], [14, 14]]


def test_gray_is_three_equal_channels_whose_mean_comes_back() -> None:
    layout = TileLayout(2, 2, 1, side=2)
    tiles = layout.split(np.array([[[0], [255]], [[51], [204]]], dtype=np.uint8))
    assert (tiles == tiles[:, :1]).all()
    shifted = tiles + np.array([-0.25, 0.0, 0.25])[None, :, None, None]
    np.testing.assert_allclose(layout.join(shifted), layout.join(tiles), atol=1e-15)


@pytest.mark.parametrize(
    ("size", "shifts"),
    [
        ((16, 9), ()),
        ((16, 33), ((0, 8),)),
        ((17, 5), ((8, 0),)),
        ((40, 24), ((8, 0), (0, 8), (8, 8))),
    ],
)
def test_windows_lie_over_every_seam(
    size: tuple[int, int], shifts: tuple[tuple[int, int], ...]
) -> None:
    layout = TileLayout(*size, 3, side=16)
    z = np.random.default_rng(0).normal(size=(layout.count, 3, 16, 16))
    seen: list[int] = []

    def denoise(windows: Float64) -> Float64:
        assert windows.shape[1:] == (3, 16, 16)
        seen.append(len(windows))
        return 2.0 * windows

    assert layout.shifts == shifts
    np.testing.assert_allclose(layout.without_seams(2.0 * z, z, denoise), 2.0 * z, rtol=1e-12)
    assert len(seen) == len(shifts)
    rows, columns = layout.rows, layout.columns
    expected = [(rows - bool(down)) * (columns - bool(right)) for down, right in shifts]
    assert seen == expected


def test_no_seam_is_left_where_windows_err_at_their_edges() -> None:
    layout = TileLayout(48, 64, 3, side=16)
    from_edge = np.minimum(np.arange(16), np.arange(16)[::-1])
    wrong = np.minimum.outer(from_edge, from_edge) == 0

    def denoise(windows: Float64) -> Float64:
        return windows + wrong

    z = np.random.default_rng(0).normal(size=(layout.count, 3, 16, 16))
    error = layout.join(layout.without_seams(denoise(z), z, denoise) - z)
    # Beyond the image's own edge nothing is to be seen, by whatever window.
    assert error[1:-1, 1:-1].max() < 0.13
    np.testing.assert_allclose(error[0], 1.0)


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_deinterleave_undoes_interleave(count: int) -> None:
    tiles = np.arange(count * 3 * 4 * 4, dtype=np.float32).reshape(count, 3, 4, 4)
    vectors = interleave(tiles)
    assert vectors.shape == (count, 48)
    np.testing.assert_array_equal(deinterleave(vectors, tiles.shape), tiles)


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_every_vector_is_a_mosaic_of_all_tiles(count: int) -> None:
    number = np.broadcast_to(
        np.arange(count, dtype=np.float64)[:, None, None, None], (count, 3, 4, 4)
    )
    for vector in interleave(number):
        shares = np.bincount(vector.astype(int), minlength=count)
        assert shares.min() >= 48 // count
        assert shares.max() <= -(-48 // count)
