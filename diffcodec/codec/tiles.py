"""Images of any size as square tiles, the windows that the network sees, and the vectors coded."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diffcodec.diffusion.process import levels_to_signal

Float64 = NDArray[np.float64]
Window = tuple[slice, slice]
"""Rows and columns of an image that is padded to whole tiles."""
Denoise = Callable[[Sequence[Float64]], Iterable[Float64]]
Number = TypeVar("Number", bound=np.generic)

TILE_CHANNELS = 3

LARGEST_WINDOW = 3
"""Most tiles a side of a window.

The larger windows are, the less of an image lies at an edge beyond which the network sees nothing;
the smaller, the more processors can share an image (docs/coding.md, Images of several tiles).
"""


@dataclass(frozen=True)
class TileLayout:
    """How an image of ``height`` × ``width`` × ``channels`` is cut into tiles of side ``side``.

    Tiles are counted row by row; those at the right and lower edges are padded, with what no
    packet tells. A gray image is coded as three equal channels.
    """

    height: int
    width: int
    channels: int
    side: int

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.side)

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return -(-self.width // self.side)

    @property
    def count(self) -> int:
        """G, the number of tiles."""
        return self.rows * self.columns

    @property
    def tile_dimensions(self) -> int:
        """n, the number of coordinates of one tile."""
        return TILE_CHANNELS * self.side * self.side

    @property
    def vectors(self) -> int:
        """How many vectors of `tile_dimensions` coordinates hold the image's own."""
        return -(-self.image_dimensions // self.tile_dimensions)

    @property
    def windows(self) -> tuple[Window, ...]:
        """What the network sees at once: whole tiles, as few and as equal windows as can be."""
        return self._between(_cuts(self.rows), _cuts(self.columns))

    @property
    def seam_windows(self) -> tuple[tuple[Window, ...], ...]:
        """Windows over the seams between `windows`: moved down, to the right, and both.

        They reach from the middle of a window to that of the next, in whole tiles. Ways in which
        there is no seam are left out.
        """
        rows, columns = _cuts(self.rows), _cuts(self.columns)
        moved_rows, moved_columns = _middles(rows), _middles(columns)
        ways = ((moved_rows, columns), (rows, moved_columns), (moved_rows, moved_columns))
        laid = (self._between(*way) for way in ways)
        return tuple(windows for windows in laid if windows)

    def _between(self, rows: Sequence[int], columns: Sequence[int]) -> tuple[Window, ...]:
        """The windows between lines, counted in tiles."""
        sides = (
            [slice(a * self.side, b * self.side) for a, b in itertools.pairwise(lines)]
            for lines in (rows, columns)
        )
        return tuple(itertools.product(*sides))

    def split(self, pixels: NDArray[np.uint8]) -> Float64:
        """uint8 [H, W, C] to the signal float64 [G, 3, S, S] in [−1, 1]."""
        below = self.rows * self.side - self.height
        beside = self.columns * self.side - self.width
        padded = np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge")
        signal = levels_to_signal(np.broadcast_to(padded, (*padded.shape[:2], TILE_CHANNELS)))
        return self.cut(signal.transpose(2, 0, 1))

    @property
    def image_dimensions(self) -> int:
        """Coordinates of the tiles that are the image's, not padding."""
        return TILE_CHANNELS * self.height * self.width

    def inside(self) -> NDArray[np.bool_]:
        """Which pixels of the tiles are the image's, not padding: bool [G, S, S]."""
        row = np.arange(self.rows * self.side) < self.height
        column = np.arange(self.columns * self.side) < self.width
        return self.cut((row[:, None] & column)[None])[:, 0]

    def join(self, tiles: Float64) -> Float64:
        """float64 [G, 3, S, S] to float64 [H, W, C]: padding cropped, gray's channels averaged."""
        plane = self.lay(tiles)
        image = np.ascontiguousarray(plane[:, : self.height, : self.width].transpose(1, 2, 0))
        if self.channels == TILE_CHANNELS:
            return image
        # In this order of operations, so that every platform gets the same sum.
        return ((image[:, :, :1] + image[:, :, 1:2]) + image[:, :, 2:]) / TILE_CHANNELS

    def without_seams(self, tiles: Float64, z: Float64, denoise: Denoise) -> Float64:
        """What ``denoise`` makes of ``z`` window by window, without the seams between windows.

        At a window's edge the network does not see what lies beyond. So others are laid over the
        seams of the same z (`seam_windows`), and of the windows that a pixel lies in those count
        most that it lies in the middle of.

        Args:
            tiles: what ``denoise`` makes of `windows`, float64 [G, 3, S, S].
            z: float64 [G, 3, S, S].
            denoise: windows [3, H, W] to x̂_0, each of the shape that it came in.

        Returns:
            float64 [G, 3, S, S]; ``tiles`` themselves where there is one window.
        """
        if not self.seam_windows:
            return tiles
        plane, denoised = self.lay(z), self.lay(tiles)
        total, weights = np.zeros_like(plane), np.zeros_like(plane[0])

        def add(window: Window, x_hat: Float64) -> None:
            weight = np.multiply.outer(*(_from_edge(side) for side in x_hat.shape[1:]))
            total[:, *window] += weight * x_hat
            weights[window] += weight

        for window in self.windows:
            add(window, denoised[:, *window])
        for windows in self.seam_windows:
            said = denoise([plane[:, *window] for window in windows])
            for window, x_hat in zip(windows, said, strict=True):
                add(window, x_hat)
        return self.cut(total / weights)

    def deal(self, tiles: NDArray[Number]) -> NDArray[Number]:
        """[G, 3, S, S] to the vectors of the channel code, [`vectors`, `tile_dimensions`].

        The image's own coordinates, tile by tile, are dealt like cards: neighbours go to different
        vectors, so that all carry nearly equal shares of the work. Behind them are zeros.
        """
        dealt = np.zeros(self.vectors * self.tile_dimensions, dtype=tiles.dtype)
        dealt[: self.image_dimensions] = tiles[self._own]
        return np.ascontiguousarray(dealt.reshape(-1, self.vectors).T)

    def collect(self, vectors: NDArray[Number], padding: NDArray[Number]) -> NDArray[Number]:
        """The inverse of `deal`: tiles [G, 3, S, S], ``padding`` in the coordinates of padding."""
        tiles = np.empty((self.count, TILE_CHANNELS, self.side, self.side), dtype=vectors.dtype)
        tiles[self._own] = vectors.T.reshape(-1)[: self.image_dimensions]
        tiles[~self._own] = padding
        return tiles

    @property
    def padding_dimensions(self) -> int:
        """Coordinates of the tiles that are padding."""
        return self.count * self.tile_dimensions - self.image_dimensions

    @cached_property
    def _own(self) -> NDArray[np.bool_]:
        """Which coordinates of the tiles are the image's, bool [G, 3, S, S]."""
        return np.repeat(self.inside()[:, None], TILE_CHANNELS, axis=1)

    def lay(self, tiles: NDArray[Number]) -> NDArray[Number]:
        """[G, C, S, S] to the padded image [C, rows · S, columns · S]."""
        _, channels, side, _ = tiles.shape
        grid = tiles.reshape(self.rows, self.columns, channels, side, side)
        plane = grid.transpose(2, 0, 3, 1, 4).reshape(channels, self.rows * side, -1)
        return np.ascontiguousarray(plane)

    def cut(self, plane: NDArray[Number]) -> NDArray[Number]:
        """The inverse of `lay`: tiles [G, C, S, S], counted row by row."""
        channels, side = len(plane), self.side
        grid = plane.reshape(channels, self.rows, side, self.columns, side)
        tiles = grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels, side, side)
        return np.ascontiguousarray(tiles)

    def place(self, part: NDArray[Number], window: Window, tiles: NDArray[Number]) -> None:
        """Write [C, H, W], what ``window`` holds, to where it belongs in ``tiles`` [G, C, S, S]."""
        channels, height, _ = part.shape
        grid = tiles.reshape(self.rows, self.columns, channels, self.side, self.side)
        rows, columns = (slice(w.start // self.side, w.stop // self.side) for w in window)
        cut = part.reshape(channels, height // self.side, self.side, -1, self.side)
        grid[rows, columns] = cut.transpose(1, 3, 0, 2, 4)


def _cuts(tiles: int) -> list[int]:
    """Where ``tiles`` in a row are cut into windows, both ends included."""
    count = -(-tiles // LARGEST_WINDOW)
    return [tiles * number // count for number in range(count + 1)]


def _middles(cuts: Sequence[int]) -> list[int]:
    return [(first + end) // 2 for first, end in itertools.pairwise(cuts)]


def _from_edge(side: int) -> Float64:
    """Of each of ``side`` pixels in a row, how far it is from the row's nearer end."""
    place = np.arange(side)
    return np.minimum(place, place[::-1]) + 0.5
