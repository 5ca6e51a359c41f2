"""``diffcodec rd-curve``: error against rate, from real files."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import files
from cli.data import data_options, locate_data
from cli.terminal import Terminal
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS

if TYPE_CHECKING:
    from benchmarks.adapters.base import Pixels

NAME = "rd-curve"
JSON_SUFFIX = ".json"


@click.command(NAME)
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="The first N test images.",
)
@data_options
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@click.option(
    "--effort",
    type=click.IntRange(EFFORTS[0], EFFORTS[-1]),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="More effort, more network evaluations, fewer bits.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes. Default: one a core."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(NAME),
    show_default=True,
    metavar="DIR",
    help="Folder for rd-curve.json, rd-curve.png and rd-curve.svg.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    count: int,
    data: Path | None,
    download: bool,
    model: str | None,
    effort: int,
    jobs: int | None,
    out: Path,
    force: bool,
    quiet: bool,
) -> None:
    """Measure error against rate with real files.

    Every image is encoded losslessly and decoded from each prefix that ends with a packet. The
    table shows, at common rates, the error of the longest prefixes that fit, beside what theory
    promises: the KL of the model's 1000 steps.
    """
    from benchmarks.peers import first_test_images
    from diffcodec.model.catalog import find_model, recorded_digest

    terminal = Terminal(quiet)
    targets = {suffix: out / f"{NAME}{suffix}" for suffix in (JSON_SUFFIX, ".png", ".svg")}
    for target in targets.values():
        files.refuse_overwrite(target, force)
    folder = find_model(model)
    images = first_test_images(locate_data(data, download, terminal), count)

    from benchmarks import rate_distortion
    from benchmarks.plot import figure_bytes, rate_distortion_figure
    from benchmarks.provenance import provenance

    work = rate_distortion.Work(effort)
    with terminal.progress("images", len(images)) as advance:
        measurements = rate_distortion.measure_images(
            images,
            folder,
            work,
            jobs or rate_distortion.default_jobs(),
            lambda measurement: advance(1),
        )
    summary = rate_distortion.summarize(measurements)
    record = {
        "provenance": provenance(),
        "model": {"name": folder.name, "digest": recorded_digest(folder).hex()},
        "effort": effort,
        "split": "test",
        "pixels_sha256": _digest(images),
        **summary,
    }
    figure = rate_distortion_figure(record)
    out.mkdir(parents=True, exist_ok=True)
    for suffix, target in targets.items():
        if suffix == JSON_SUFFIX:
            content = (json.dumps(record, indent=1) + "\n").encode()
        else:
            content = figure_bytes(figure, suffix[1:])
        files.write_atomically(target, content, force)
    click.echo(rate_distortion.format_table(summary))
    terminal.say(f"written: {', '.join(map(str, targets.values()))}")


def _digest(images: "Pixels") -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()
