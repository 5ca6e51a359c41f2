"""Images of any size as square tiles, and the tiles as vectors for the channel code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diffcodec.diffusion.process import levels_to_signal

Float64 = NDArray[np.float64]
Denoise = Callable[[Float64], Float64]
Number = TypeVar("Number", bound=np.generic)

TILE_CHANNELS = 3


@dataclass(frozen=True)
class TileLayout:
    """How an image of ``height`` × ``width`` × ``channels`` is cut into tiles of side ``side``.

    The image is padded to whole tiles by replicating its right and lower edges; tiles are counted
    row by row. A gray image is coded as three equal channels.
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
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """Where windows over the seams begin, down and right: those that there is room for."""
        half = self.side // 2
        shifts = ((half, 0), (0, half), (half, half))
        return tuple(
            (down, right)
            for down, right in shifts
            if (not down or self.rows > 1) and (not right or self.columns > 1)
        )

    def split(self, pixels: NDArray[np.uint8]) -> Float64:
        """uint8 [H, W, C] to the signal float64 [G, 3, S, S] in [−1, 1]."""
        below = self.rows * self.side - self.height
        beside = self.columns * self.side - self.width
        padded = np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge")
        signal = levels_to_signal(np.broadcast_to(padded, (*padded.shape[:2], TILE_CHANNELS)))
        return _cut(signal.transpose(2, 0, 1), self.side)

    def inside(self) -> NDArray[np.bool_]:
        """Which pixels of the tiles are the image's, not padding: bool [G, S, S]."""
        row = np.arange(self.rows * self.side) < self.height
        column = np.arange(self.columns * self.side) < self.width
        return _cut((row[:, None] & column)[None], self.side)[:, 0]

    def join(self, tiles: Float64) -> Float64:
        """float64 [G, 3, S, S] to float64 [H, W, C]: padding cropped, gray's channels averaged."""
        plane = _lay(tiles, self.rows, self.columns)
        image = np.ascontiguousarray(plane[:, : self.height, : self.width].transpose(1, 2, 0))
        if self.channels == TILE_CHANNELS:
            return image
        # In this order of operations, so that every platform gets the same sum.
        return ((image[:, :, :1] + image[:, :, 1:2]) + image[:, :, 2:]) / TILE_CHANNELS

    def without_seams(self, tiles: Float64, z: Float64, denoise: Denoise) -> Float64:
        """Tiles that ``denoise`` makes of ``z``, without the seams between them.

        At a tile's edge the network does not see what lies beyond. So windows are laid over the
        same z as well, shifted by half a tile (`shifts`), and of the windows that a pixel lies in
        those count most that it lies in the middle of.

        Args:
            tiles: what ``denoise`` makes of ``z`` as it is, float64 [G, 3, S, S].
            z: float64 [G, 3, S, S].
            denoise: windows [N, 3, S, S] to x̂_0 of the same shape.

        Returns:
            float64 [G, 3, S, S]; ``tiles`` themselves where there is one.
        """
        if not self.shifts:
            return tiles
        plane = _lay(z, self.rows, self.columns)
        from_edge = np.minimum(np.arange(self.side), np.arange(self.side)[::-1]) + 0.5
        weight = from_edge[:, None] * from_edge
        total = _lay(tiles * weight, self.rows, self.columns)
        weights = np.tile(weight, (self.rows, self.columns))
        for down, right in self.shifts:
            rows, columns = self.rows - (down > 0), self.columns - (right > 0)
            where = (
                ...,
                slice(down, down + rows * self.side),
                slice(right, right + columns * self.side),
            )
            windows = denoise(_cut(plane[where], self.side))
            total[where] += _lay(windows * weight, rows, columns)
            weights[where] += np.tile(weight, (rows, columns))
        return _cut(total / weights, self.side)


def _cut(plane: NDArray[Number], side: int) -> NDArray[Number]:
    """[C, rows · S, columns · S] to tiles [rows · columns, C, S, S], counted row by row."""
    channels, height, width = plane.shape
    grid = plane.reshape(channels, height // side, side, width // side, side)
    return np.ascontiguousarray(grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels, side, side))


def _lay(tiles: Float64, rows: int, columns: int) -> Float64:
    """The inverse of `_cut`."""
    _, channels, side, _ = tiles.shape
    grid = tiles.reshape(rows, columns, channels, side, side).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(grid.reshape(channels, rows * side, columns * side))


def interleave(tiles: NDArray[np.floating]) -> NDArray[np.floating]:
    """[G, C, S, S] to G vectors [G, n], each a mosaic of all tiles.

    Coordinate p of vector g is coordinate p of tile (g − p) mod G: however the work differs between
    tiles, the vectors carry nearly equal shares of it, so one budget serves them all.
    """
    count = len(tiles)
    flat = tiles.reshape(count, -1)
    source, coordinate = _mosaic(count, flat.shape[1])
    return flat[source, coordinate]


def deinterleave(vectors: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.floating]:
    """The inverse of `interleave`: [G, n] to ``shape`` = [G, C, S, S]."""
    source, coordinate = _mosaic(*vectors.shape)
    flat = np.empty_like(vectors)
    flat[source, coordinate] = vectors
    return flat.reshape(shape)


def _mosaic(count: int, dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    coordinate = np.arange(dimensions)
    return (np.arange(count)[:, None] - coordinate) % count, coordinate
