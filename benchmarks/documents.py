"""Tables of stored records in their places in documents.

``python -m benchmarks.documents [--results DIR] [FILE …]`` prints all tables, or fills the places
that files keep for them: what stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    ablation,
    channel_check,
    channel_comparison,
    effort_front,
    experiments,
    finest_plan,
    photographs,
    processors,
    results,
    speed,
)
from benchmarks.tables import NOT_MEASURED, TABLES, Record, Table, markdown, origin, table
from cli import files
from diffcodec.errors import DiffcodecError

ORIGIN = "origin"
"""Where the main record comes from, a line."""
_PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Side:
    """A table of a record beside the main one; the line under it says where that comes from."""

    file: str
    write: Callable[[Any], Table | None]

    def text(self, folder: Path) -> str:
        """The table and its origin; a word that there is no record where there is none."""
        path = folder / self.file
        if not path.is_file():
            return NOT_MEASURED
        record = results.load(path)
        found = self.write(record)
        shown = NOT_MEASURED if found is None else found.markdown()
        return f"{shown}\n\n{_side_origin(record)}"


SIDES: Mapping[str, Side] = {
    "channel-codes": Side(results.CHANNEL_CODES_RECORD, channel_comparison.comparison_table),
    "channel-check": Side(channel_check.RESULT, channel_check.check_table),
    "effort-front": Side(effort_front.RESULT, effort_front.best_table),
    "ablation": Side(ablation.RESULT, ablation.ablation_table),
    "finest-plan": Side(finest_plan.RESULT, finest_plan.plans_table),
    "photographs-lossless": Side(photographs.RESULT, lambda record: table("lossless", record)),
    "photographs-bd-rates": Side(photographs.RESULT, lambda record: table("bd-rates", record)),
    "processors": Side(processors.RESULT, processors.processors_table),
    "groups": Side(effort_front.RESULT, effort_front.groups_table),
    "experiments": Side(
        experiments.RESULT, lambda record: experiments.experiments_table(record["rows"])
    ),
    "speed-by-effort": Side(speed.RESULT, lambda record: speed.speed_table(record["efforts"])),
}


def _side_origin(record: Record) -> str:
    provenance = record["provenance"]
    state = " with uncommitted changes" if provenance["dirty"] else ""
    made = (
        f"{provenance['commit'][:12]}{state}, {provenance['date'][:10]}, {provenance['cpu']}, "
        f"torch {provenance['packages']['torch']}: `{provenance['command']}`"
    )
    # Experiments train models and measure none that there was.
    of_model = f"Model {record['model']['digest'][:12]}, commit" if "model" in record else "Commit"
    return f"({of_model} {made})"


def content(name: str, record: Record, folder: Path) -> str:
    """What stands in the place of that name, without a last line break.

    Args:
        record: the main one of ``folder``.

    Raises:
        DiffcodecError: there is no such table, or a record is not one.
    """
    if name == ORIGIN:
        return origin(record)
    if name not in SIDES:
        if name not in TABLES:
            known = ", ".join((ORIGIN, *TABLES, *SIDES))
            raise DiffcodecError(f"expected a table of {known}, found {name!r}")
        return markdown(name, record)
    try:
        return SIDES[name].text(folder)
    except (KeyError, TypeError, IndexError) as error:
        path = folder / SIDES[name].file
        raise DiffcodecError(f"{path}: not the results of a measurement: {error!r}") from error


def fill(text: str, record: Record, folder: Path) -> str:
    """A document with every table in its place.

    Raises:
        DiffcodecError: as `content`.
    """

    def replace(place: re.Match[str]) -> str:
        return f"{place[1]}{content(place[2], record, folder)}\n{place[3]}"

    return _PLACE.sub(replace, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables or fill files; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents", description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="DIR")
    options = parser.parse_args(arguments)
    folder: Path = options.results
    try:
        record, _ = results.load_folder(folder)
        for path in options.files:
            text = path.read_text(encoding="utf-8")
            files.write_atomically(path, fill(text, record, folder).encode(), force=True)
        if not options.files:
            print(origin(record))
            for name in (*TABLES, *SIDES):
                print(f"\n{name}\n\n{content(name, record, folder)}")
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
