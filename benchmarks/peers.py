"""What other lossless codecs make of the first CIFAR-10 test images, one file per image.

``python -m benchmarks.peers --images 200 --out benchmarks/results/peers.json``
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.adapters import Adapter, lossless_peers
from benchmarks.adapters.base import Pixels
from benchmarks.provenance import provenance
from diffcodec.errors import DatasetError, DiffcodecError
from diffcodec.training.dataset import find_data, load_images
from diffcodec.units import bits_per_dimension


@dataclass(frozen=True)
class Measurement:
    """Lossless size of one codec over a set of images, whole files counted, in bits/dim."""

    name: str
    library: str
    images: int
    mean_bpd: float
    standard_error_bpd: float


def measure(adapter: Adapter, images: Pixels) -> Measurement:
    """Encode and decode each of ``images``, uint8 ``[N, H, W, 3]`` with N ≥ 2, on its own.

    The standard error is that of the mean over images: their sample deviation over √N.

    Raises:
        DiffcodecError: an image does not come back exactly.
    """
    sizes_bits = np.empty(len(images))
    for index, image in enumerate(images):
        data = adapter.encode(image)
        if not np.array_equal(adapter.decode(data), image):
            raise DiffcodecError(f"{adapter.name}: image {index} does not come back exactly")
        sizes_bits[index] = 8 * len(data)
    rates_bpd = bits_per_dimension(sizes_bits, images[0].size)
    return Measurement(
        name=adapter.name,
        library=adapter.library,
        images=len(images),
        mean_bpd=float(rates_bpd.mean()),
        standard_error_bpd=float(rates_bpd.std(ddof=1) / np.sqrt(len(images))),
    )


def first_test_images(data: Path | None, count: int) -> Pixels:
    """The first ``count`` test images of the data set found, uint8 ``[count, 32, 32, 3]``.

    Raises:
        DatasetError: there is no data set, or it has fewer test images.
    """
    place = find_data(data)
    images = load_images(place, "test")
    if len(images) < count:
        raise DatasetError(f"{place}: expected {count} test images, found {len(images)}")
    return images[:count]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table and, on request, write JSON; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--images", type=int, default=200, metavar="N", help="at least 2")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    parser.add_argument("--out", type=Path, metavar="JSON", help="where to write the figures")
    options = parser.parse_args(arguments)
    if options.images < 2:
        parser.error("--images must be at least 2: a standard error needs two")
    try:
        images = first_test_images(options.data, options.images)
        results = [measure(adapter, images) for adapter in lossless_peers()]
        if options.out is not None:
            record = {
                "provenance": provenance(),
                "split": "test",
                "images": len(images),
                "pixels_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
                "results": [asdict(result) for result in results],
            }
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for result in results:
        print(
            f"{result.name:38} {result.mean_bpd:.3f} ± {result.standard_error_bpd:.3f} bits/dim"
            f"   ({result.library})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
