"""How large an image may be unless the caller allows more, for both ends.

A header of a dozen bytes can announce any size, and a picture of one colour compresses to nothing:
without a limit a small file makes a program allocate what it pleases (a decompression bomb).
"""

PIXEL_LIMIT = 1 << 24
"""Pixels that an image or a header may have, counted by `counted_pixels`: 4096 × 4096.

The codec holds all tiles at once, some 600 bytes a pixel (resident memory at 512 × 512 pixels less
that at 256 × 256: 480 to 570), so an image of this size needs 10 GB and, at some 20 ms a tile and
evaluation, hours: more should be asked for by name.
"""

LIMIT_BLOCK = 32
"""Side of the blocks, in pixels, in which an image's area is counted: that of the shipped tiles."""


def counted_pixels(width: int, height: int) -> int:
    """The area that a limit counts, in pixels: both sides rounded up to whole blocks.

    Tiles are padded, so an image of one row takes as much memory as one of thirty-two.

    >>> counted_pixels(1, 1), counted_pixels(33, 64)
    (1024, 4096)
    """
    columns, rows = (-(-side // LIMIT_BLOCK) for side in (width, height))
    return columns * rows * LIMIT_BLOCK**2


def excess_pixels(width: int, height: int, limit: int | None) -> str | None:
    """What to say of an image beyond ``limit`` pixels, or ``None`` where it may pass.

    ``limit`` of ``None`` lets everything pass.
    """
    counted = counted_pixels(width, height)
    if limit is None or counted <= limit:
        return None
    return (
        f"expected at most {limit} pixels, found {width}×{height}, which is {counted} in whole "
        f"blocks of {LIMIT_BLOCK}×{LIMIT_BLOCK}; --max-pixels {counted} allows them"
    )
