"""Images of any size as square tiles, and the tiles as vectors for the channel code."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffcodec.diffusion.process import levels_to_signal

Float64 = NDArray[np.float64]

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

    def split(self, pixels: NDArray[np.uint8]) -> Float64:
        """uint8 [H, W, C] to the signal float64 [G, 3, S, S] in [−1, 1]."""
        below = self.rows * self.side - self.height
        beside = self.columns * self.side - self.width
        padded = np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge")
        signal = levels_to_signal(np.broadcast_to(padded, (*padded.shape[:2], TILE_CHANNELS)))
        grid = signal.reshape(self.rows, self.side, self.columns, self.side, TILE_CHANNELS)
        tiles = grid.transpose(0, 2, 4, 1, 3)
        return np.ascontiguousarray(tiles.reshape(-1, TILE_CHANNELS, self.side, self.side))

    def inside(self) -> NDArray[np.bool_]:
        """Which pixels of the tiles are the image's, not padding: bool [G, S, S]."""
        row = np.arange(self.rows * self.side) < self.height
        column = np.arange(self.columns * self.side) < self.width
        grid = (row[:, None] & column).reshape(self.rows, self.side, self.columns, self.side)
        return grid.transpose(0, 2, 1, 3).reshape(-1, self.side, self.side)

    def join(self, tiles: Float64) -> Float64:
        """float64 [G, 3, S, S] to float64 [H, W, C]: padding cropped, gray's channels averaged."""
        grid = tiles.reshape(self.rows, self.columns, TILE_CHANNELS, self.side, self.side)
        image = grid.transpose(0, 3, 1, 4, 2).reshape(
            self.rows * self.side, self.columns * self.side, TILE_CHANNELS
        )[: self.height, : self.width]
        if self.channels == TILE_CHANNELS:
            return image
        # In this order of operations, so that every platform gets the same sum.
        return ((image[:, :, :1] + image[:, :, 1:2]) + image[:, :, 2:]) / TILE_CHANNELS


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
