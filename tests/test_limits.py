import pytest

from diffcodec.limits import PIXEL_LIMIT, counted_pixels, excess_pixels


@pytest.mark.parametrize(
    ("width", "height", "counted"),
    [(1, 1, 1024), (32, 32, 1024), (33, 1, 2048), (1, 1 << 20, 1 << 25), (4096, 4096, 1 << 24)],
)
def test_sides_count_in_whole_blocks(width: int, height: int, counted: int) -> None:
    assert counted_pixels(width, height) == counted_pixels(height, width) == counted


def test_what_is_too_large_names_the_option_that_allows_it() -> None:
    assert excess_pixels(4096, 4096, PIXEL_LIMIT) is None
    message = excess_pixels(4097, 4096, PIXEL_LIMIT)
    assert message is not None
    assert "4097×4096" in message
    allowed = int(message.split("--max-pixels ")[1].split()[0])
    assert excess_pixels(4097, 4096, allowed) is None
    assert excess_pixels(4097, 4096, allowed - 1) is not None
    assert excess_pixels(1 << 32, 1 << 32, None) is None


def test_a_line_counts_as_the_tiles_it_is_padded_to() -> None:
    assert excess_pixels(1, PIXEL_LIMIT // 32, PIXEL_LIMIT) is None
    assert excess_pixels(1, PIXEL_LIMIT // 32 + 1, PIXEL_LIMIT) is not None
