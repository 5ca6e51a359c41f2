"""The images that the benchmarks measure."""

import hashlib
from pathlib import Path

from benchmarks.adapters.base import Pixels
from diffcodec.errors import DatasetError
from diffcodec.training.dataset import Split, find_data, load_images


def first_images(data: Path | None, count: int, split: Split = "test") -> Pixels:
    """The first ``count`` images of the data set found, uint8 ``[count, 32, 32, 3]``.

    Raises:
        DatasetError: there is no data set, or it has fewer images.
    """
    place = find_data(data)
    images = load_images(place, split)
    if len(images) < count:
        raise DatasetError(f"{place}: expected {count} {split} images, found {len(images)}")
    return images[:count]


def pixels_digest(images: Pixels) -> str:
    """SHA-256 of the images' bytes, which says what was measured."""
    return hashlib.sha256(images.tobytes()).hexdigest()
