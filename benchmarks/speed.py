"""How fast each effort is, and what takes the time: ``python -m benchmarks.speed``.

CIFAR-10 test images, lossless: the median milliseconds of one image at a time on one thread, the
milliseconds an image of a batch shared among processes, the network's evaluations, and the shares
of network, coder and the rest in the single images' time. Results go to ``speed.json``, a table to
stdout. The machine should do nothing else.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.adapters.base import Pixels
from benchmarks.adapters.diffcodec_file import Diffcodec
from benchmarks.efforts import EffortFile, measure_effort, summarize_efforts
from benchmarks.parts import PARTS
from benchmarks.provenance import provenance
from benchmarks.results import RESULTS, dumps, refuse_overwrite
from benchmarks.tables import Table
from benchmarks.timing import time_batch
from cli import files
from cli.main import unwinding_endings
from cli.terminal import Terminal
from cli.workers import default_jobs, in_processes
from diffcodec.codec.effort import EFFORTS, effort_level
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.errors import DatasetError, DiffcodecError
from diffcodec.model.catalog import find_model

RESULT = "speed.json"


@dataclass(eq=False)
class SingleWork:
    """All images at one effort, one after the other; travels to the process that times them."""

    images: Pixels
    model_folder: Path

    @cached_property
    def model(self) -> CodecModel:
        """The model on the CPU."""
        return load_codec_model(self.model_folder)

    def __call__(self, item: str) -> Any:
        """The files of the effort ``item``, ready for JSON."""
        effort = effort_level(int(item))
        # What a process makes once, as codebooks, is not its speed.
        measure_effort(self.images[0], self.model, effort)
        return [measure_effort(pixels, self.model, effort).to_json() for pixels in self.images]


def measure_speed(
    images: Pixels,
    model_folder: Path,
    efforts: Sequence[int],
    singles: int,
    jobs: int,
    terminal: Terminal,
) -> list[dict[str, Any]]:
    """One row an effort, ready for JSON.

    Args:
        images: the batch, uint8 [N, H, W, C] of one size.
        singles: how many of them are also coded one at a time.
        jobs: processes among which the batch is shared.

    Raises:
        DiffcodecError: the model cannot be used, or a worker process has died.
    """
    single: dict[int, list[EffortFile]] = {}
    batch: dict[int, dict[str, Any]] = {}
    work = SingleWork(images[:singles], model_folder)
    with terminal.progress("efforts timed", 2 * len(efforts)) as advance:
        for item, entries in in_processes([str(effort) for effort in efforts], work, 1):
            single[int(item)] = [EffortFile.from_json(entry) for entry in entries]
            advance(1)
        for effort in efforts:
            batch[effort] = time_batch(Diffcodec(model_folder, effort), images, jobs)
            advance(1)
    rows = summarize_efforts({effort: single[effort] for effort in efforts}, images[0].size)
    return [{**row, **batch[row["effort"]]} for row in rows]


def speed_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Milliseconds, evaluations and shares, an effort a row."""
    parts = "/ ".join(PARTS)
    return Table(
        (
            *("effort", "evaluations", "encode, ms", "decode, ms"),
            *("batch: encode, ms", "batch: decode, ms"),
            *(f"encoder: {parts}, %", f"decoder: {parts}, %"),
        ),
        [
            (
                str(row["effort"]),
                _evaluations(row),
                *(f"{1e3 * row[f'{side}_seconds_median']:.0f}" for side in ("encode", "decode")),
                *(f"{row[f'batch_{side}_ms']:.0f}" for side in ("encode", "decode")),
                *(_shares(row[f"{side}_shares"]) for side in ("encode", "decode")),
            )
            for row in rows
        ],
    )


def _evaluations(row: dict[str, Any]) -> str:
    """The decoder's, after the encoder's where that has others."""
    encoder, decoder = (f"{row[f'{side}_evaluations_mean']:.1f}" for side in ("encode", "decode"))
    return decoder if encoder == decoder else f"{encoder}/{decoder}"


def _shares(shares: dict[str, float]) -> str:
    return "/".join(f"{100.0 * shares[part]:.0f}" for part in PARTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--efforts", type=int, nargs="+", default=EFFORTS, choices=EFFORTS, metavar="E"
    )
    parser.add_argument("--images", type=int, default=16, metavar="N", help="coded one at a time")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="at least --images")
    parser.add_argument(
        "--jobs", type=int, default=default_jobs(), metavar="N", help="of the batch"
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    parser.add_argument("--model", metavar="M", help="a packaged model's name or a model's folder")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--force", action="store_true", help="replace a record")
    options = parser.parse_args(arguments)
    if not 1 <= options.images <= options.batch or options.jobs < 1:
        parser.error("expected 1 ≤ --images ≤ --batch, and --jobs of at least 1")
    try:
        with unwinding_endings():
            refuse_overwrite(options.out / RESULT, force=options.force)
            origin = provenance()
            folder = find_model(options.model)
            images = inputs.first_images(options.data, options.batch)
            efforts = sorted(set(options.efforts))
            rows = measure_speed(images, folder, efforts, options.images, options.jobs, Terminal())
            record = {
                **inputs.record_head(origin, folder, images),
                "singles": options.images,
                "batch": len(images),
                "efforts": rows,
            }
            options.out.mkdir(parents=True, exist_ok=True)
            files.write_atomically(options.out / RESULT, dumps(record), force=True)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        print("'diffcodec rd-curve --download' fetches CIFAR-10", file=sys.stderr)
        return 1
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    speed_table(rows).show()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
