from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.codec.tiles import TileLayout
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


def test_lay_undoes_cut() -> None:
    layout = TileLayout(32, 48, 3, side=16)
    plane = np.arange(2 * 32 * 48).reshape(2, 32, 48)
    tiles = layout.cut(plane)
    np.testing.assert_array_equal(tiles[4], plane[:, 16:, 16:32])
    np.testing.assert_array_equal(layout.lay(tiles), plane)


def test_windows_are_placed_where_they_were() -> None:
    layout = TileLayout(5 * 16, 4 * 16, 3, side=16)
    plane = np.arange(2 * 5 * 16 * 4 * 16).reshape(2, 5 * 16, 4 * 16)
    tiles = np.zeros((layout.count, 2, 16, 16), dtype=plane.dtype)
    for window in layout.windows:
        layout.place(plane[:, *window], window, tiles)
    np.testing.assert_array_equal(tiles, layout.cut(plane))


@pytest.mark.parametrize(
    ("tiles", "cuts"),
    [
        (1, [0, 1]),
        (2, [0, 2]),
        (3, [0, 3]),
        (4, [0, 2, 4]),
        (5, [0, 2, 5]),
        (6, [0, 3, 6]),
        (7, [0, 2, 4, 7]),
        (16, [0, 2, 5, 8, 10, 13, 16]),
    ],
)
def test_windows_are_whole_tiles_and_cover_an_image_once(tiles: int, cuts: list[int]) -> None:
    layout = TileLayout(16 * tiles - 3, 33, 3, side=16)
    expected = [slice(16 * a, 16 * b) for a, b in pairwise(cuts)]
    assert layout.windows == tuple((rows, slice(0, 48)) for rows in expected)
    turned = TileLayout(33, 16 * tiles - 3, 3, side=16)
    assert turned.windows == tuple((slice(0, 48), columns) for columns in expected)


def doubled(windows: Sequence[Float64]) -> list[Float64]:
    return [2.0 * window for window in windows]


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        ((16, 9), []),
        ((48, 48), []),
        ((16, 61), [[(16, 32)]]),
        ((64, 5), [[(32, 16)]]),
        ((16, 105), [[(16, 32), (16, 32)]]),
        ((64, 70), [[(32, 32), (32, 48)], [(32, 32), (32, 32)], [(32, 32)]]),
    ],
)
def test_windows_lie_over_every_seam(
    size: tuple[int, int], windows: list[list[tuple[int, int]]]
) -> None:
    layout = TileLayout(*size, 3, side=16)
    z = np.random.default_rng(0).normal(size=(layout.count, 3, 16, 16))
    seen: list[list[tuple[int, ...]]] = []

    def denoise(given: Sequence[Float64]) -> list[Float64]:
        seen.append([window.shape[1:] for window in given])
        return doubled(given)

    np.testing.assert_allclose(layout.without_seams(2.0 * z, z, denoise), 2.0 * z, rtol=1e-12)
    assert seen == windows
    for axis, side in enumerate((layout.rows, layout.columns)):
        seams = {window[axis].stop for window in layout.windows} - {16 * side}
        laid = [window[axis] for over in layout.seam_windows for window in over]
        assert all(any(w.start < seam < w.stop for w in laid) for seam in seams)


def test_no_seam_is_left_where_windows_err_at_their_edges() -> None:
    layout = TileLayout(7 * 16, 5 * 16, 3, side=16)

    def denoise(windows: Sequence[Float64]) -> list[Float64]:
        said = [window.copy() for window in windows]
        for window in said:
            window[:, [0, -1]] += 1.0
            window[:, :, [0, -1]] += 1.0
        return said

    z = np.random.default_rng(0).normal(size=(layout.count, 3, 16, 16))
    plane = layout.lay(z)
    parts = denoise([plane[:, *window] for window in layout.windows])
    seamed = np.empty_like(plane)
    for window, part in zip(layout.windows, parts, strict=True):
        seamed[:, *window] = part
    error = layout.join(layout.without_seams(layout.cut(seamed), z, denoise) - z)
    assert layout.join(layout.cut(seamed) - z)[1:-1, 1:-1].max() == pytest.approx(2.0)
    # Beyond the image's own edge nothing is to be seen, by whatever window.
    assert error[1:-1, 1:-1].max() < 0.1
    np.testing.assert_allclose(error[0, 1:-1], error[-1, 1:-1])
    assert error[0].min() >= 1.0 - 1e-9


@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 7), (17, 16), (40, 53), (3, 200)])
def test_collecting_undoes_dealing(height: int, width: int) -> None:
    layout = TileLayout(height, width, 3, 16)
    tiles = np.arange(layout.count * 768, dtype=np.float32).reshape(-1, 3, 16, 16)
    vectors = layout.deal(tiles)
    assert vectors.shape == (layout.vectors, 768)
    assert layout.vectors == -(-height * width // 256)
    assert vectors.flags.c_contiguous
    padding = -np.arange(1, layout.padding_dimensions + 1, dtype=np.float32)
    collected, inside = layout.collect(vectors, padding), layout.inside()[:, None]
    np.testing.assert_array_equal(np.where(inside, collected, 0), np.where(inside, tiles, 0))
    np.testing.assert_array_equal(collected[np.broadcast_to(~inside, tiles.shape)], padding)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (40, 53)])
def test_coordinates_are_dealt_as_the_format_says(height: int, width: int) -> None:
    layout = TileLayout(height, width, 3, 16)
    tiles = np.random.default_rng(0).normal(size=(layout.count, 3, 16, 16))
    expected = np.zeros((layout.vectors, 768))
    number = 0
    for tile, channel, row, column in np.ndindex(*tiles.shape):
        tile_row, tile_column = divmod(tile, layout.columns)
        if 16 * tile_row + row < height and 16 * tile_column + column < width:
            expected[number % layout.vectors, number // layout.vectors] = tiles[
                tile, channel, row, column
            ]
            number += 1
    assert number == 3 * height * width
    np.testing.assert_array_equal(layout.deal(tiles), expected)


def test_a_whole_tile_is_a_vector_as_it_is() -> None:
    tiles = np.random.default_rng(0).normal(size=(1, 3, 16, 16))
    np.testing.assert_array_equal(TileLayout(16, 16, 3, 16).deal(tiles), tiles.reshape(1, -1))


def test_only_the_image_s_own_coordinates_are_dealt() -> None:
    layout = TileLayout(17, 33, 1, 16)
    dealt = layout.deal(np.where(layout.inside()[:, None], 1.0, np.nan).repeat(3, axis=1))
    assert dealt.sum() == layout.image_dimensions == 3 * 17 * 33
    assert layout.padding_dimensions == 6 * 768 - 3 * 17 * 33


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (1, 5), (4, 4)])
def test_every_vector_has_its_share_of_every_tile(rows: int, columns: int) -> None:
    layout = TileLayout(16 * rows, 16 * columns, 3, 16)
    number = np.repeat(np.arange(layout.count), 768).reshape(-1, 3, 16, 16)
    for vector in layout.deal(number):
        shares = np.bincount(vector, minlength=layout.count)
        assert shares.min() >= 768 // layout.count
        assert shares.max() <= -(-768 // layout.count)
