"""Stored results to figures: ``python -m benchmarks.plot [--results DIR] [--out DIR]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.figures import draw
from benchmarks.figures.style import FORMATS, figure_bytes
from cli import files
from diffcodec.errors import DiffcodecError

FIGURES = results.RESULTS / "figures"


def render(folder: Path, out: Path) -> list[Path]:
    """Every figure that the results in ``folder`` are enough for, as PNG and SVG in ``out``.

    Raises:
        DiffcodecError: there are no results, or they are not a record's.
    """
    record, examples = results.load_folder(folder)
    try:
        figures = draw(record, examples, results.load_channel_codes(folder))
    except (KeyError, TypeError, IndexError) as error:
        raise DiffcodecError(f"{folder}: not the results of a measurement: {error!r}") from error
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for image_format in FORMATS:
            target = out / f"{name}.{image_format}"
            files.write_atomically(target, figure_bytes(figure, image_format), force=True)
            written.append(target)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all figures; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="DIR")
    parser.add_argument("--out", type=Path, default=FIGURES, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        written = render(options.results, options.out)
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
