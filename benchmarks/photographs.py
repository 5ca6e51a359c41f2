"""Photographs, coded in tiles: ``python -m benchmarks.photographs DIR [--side 128] [--jobs 2]``.

The middle of each photograph in DIR, a square, goes to a lossless file, which is cut where hops
begin and at the rates of the main record's table, and to every other codec: what a model that has
seen small pictures of ten kinds of things is worth on others. Results go to ``photographs.json``,
tables to stdout.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import held_out
from benchmarks.adapters import overhead_bytes
from benchmarks.adapters.base import Pixels
from benchmarks.adapters.diffcodec_file import Diffcodec
from benchmarks.peers import bd_rates, measure_peers, summarize_peers
from benchmarks.real_files import FileMeasurement, measure_file, summarize_files
from benchmarks.tables import table
from cli.files import IMAGE_SUFFIXES
from diffcodec.codec.effort import DEFAULT_EFFORT, effort_level
from diffcodec.errors import ImageError
from diffcodec.image import read_image

RESULT = "photographs.json"
SHOWN = ("lossless", "cuts", "bd-rates")
"""Tables of `benchmarks.tables` that the record has the sections of."""
_SECTIONS = ("images", "overhead_bytes", "lossless", "price", "breakdown", "table", "stops")


@dataclass(frozen=True, eq=False)
class PieceWork:
    """One piece; travels to worker processes."""

    subject: held_out.Subject

    def __call__(self, item: str) -> dict[str, Any]:
        """Our file and the others' of piece ``item``, ready for JSON."""
        pixels = self.subject.images[int(item)]
        effort = effort_level(DEFAULT_EFFORT)
        own = measure_file(
            item, pixels, self.subject.model, effort, every_packet=False, curve_bpd=()
        )
        return {"own": own.to_json(), "peers": measure_peers(pixels)}


def photographs(folder: Path) -> list[Path]:
    """The image files in ``folder``, in the order of their names.

    Raises:
        ImageError: there is none.
        OSError: there is no such folder.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ImageError(f"{folder}: expected images, found none")
    return paths


def load_pieces(paths: Sequence[Path], side: int) -> Pixels:
    """The middle of every image, uint8 [N, S, S, 3].

    Raises:
        ImageError: one cannot be read, is smaller than that or not RGB.
        OSError: one cannot be opened.
    """
    pieces = []
    for path in paths:
        # Who measures photographs has chosen them, and no more than a piece is coded.
        pixels = read_image(path.read_bytes(), str(path), pixel_limit=None)
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        if min(top, left) < 0 or pixels.shape[2] != 3:
            shape = " × ".join(map(str, pixels.shape))
            raise ImageError(f"{path}: expected RGB of at least {side} × {side}, found {shape}")
        pieces.append(pixels[top : top + side, left : left + side])
    return np.stack(pieces)


def measure(options: argparse.Namespace, subject: held_out.Subject) -> dict[str, Any]:
    """All pieces, and what `measure` of the main record makes of files.

    Raises:
        DiffcodecError: as `held_out.run_items`.
    """
    items = [str(index) for index in range(len(subject.images))]
    settings = {"effort": DEFAULT_EFFORT, "side": options.side}
    origin, results = held_out.run_items(
        options, RESULT, subject, PieceWork(subject), items, settings
    )
    own = [FileMeasurement.from_json(results[item]["own"]) for item in items]
    overhead = overhead_bytes(Diffcodec(subject.model_folder, DEFAULT_EFFORT))
    summary = summarize_files(own, overhead)
    dimensions = subject.images[0].size
    peers = summarize_peers([results[item]["peers"] for item in items], dimensions)
    return {
        "provenance": origin,
        "photographs": [path.name for path in photographs(options.folder)],
        "settings": settings,
        **{name: summary[name] for name in _SECTIONS},
        "peers": peers,
        "bd_rates": bd_rates(summary["stops"], overhead, peers, dimensions),
    }


def show(record: dict[str, Any]) -> None:
    """The record's tables."""
    for name in SHOWN:
        if (found := table(name, record)) is not None:
            found.show()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photographs",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="of photographs")
    parser.add_argument("--side", type=int, default=128, metavar="N", help="of pieces")
    held_out.add_model_options(parser)
    held_out.add_run_options(parser)
    options = parser.parse_args(arguments)
    if options.side < 1 or options.jobs < 1:
        parser.error("expected --side and --jobs of at least 1")
    return held_out.run(
        options,
        RESULT,
        lambda subject: measure(options, subject),
        show,
        images=lambda: load_pieces(photographs(options.folder), options.side),
        split="photographs",
    )


if __name__ == "__main__":
    raise SystemExit(main())
