"""The images that the benchmarks measure, and what records and journals say of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.adapters.base import Pixels
from diffcodec.errors import DatasetError
from diffcodec.model.catalog import recorded_digest
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


def split_digest(data: Path | None, split: Split = "test") -> str:
    """`pixels_digest` of all images of the data set found, of which `first_images` are the first.

    Raises:
        DatasetError: there is no data set.
    """
    return pixels_digest(load_images(find_data(data), split))


def pixels_digest(images: Pixels) -> str:
    """SHA-256 of the images' bytes, which says what was measured."""
    return hashlib.sha256(images.tobytes()).hexdigest()


def record_head(
    origin: Mapping[str, Any], model_folder: Path, images: Pixels, split: str = "test"
) -> dict[str, Any]:
    """What a record begins with: ``origin``, the provenance of its run, the model, the images."""
    return {
        "provenance": origin,
        "model": {"name": model_folder.name, "digest": recorded_digest(model_folder).hex()},
        "split": split,
        "dimensions": images[0].size,
        "pixels_sha256": pixels_digest(images),
    }


def identity(
    origin: Mapping[str, Any], model_folder: Path, pixels: Any, settings: Any
) -> dict[str, Any]:
    """All that results depend on, for a journal.

    Args:
        pixels: digests of the images.
        settings: ready for JSON.
    """
    return {
        "commit": origin["commit"],
        "changes": origin["changes"],
        "model": recorded_digest(model_folder).hex(),
        "pixels": pixels,
        "settings": settings,
    }
