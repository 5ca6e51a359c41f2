"""``diffcodec info``: what a file holds and where its bits went."""

import json
from typing import TYPE_CHECKING, Any

import click

from cli import files

if TYPE_CHECKING:
    from diffcodec.bitstream.container import Container


@click.command("info")
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(source: str, as_json: bool) -> None:
    """Show a file's header, its segments and its bits by part.

    Needs no model and no memory for pixels, so any size is shown. A truncated or damaged file is
    shown as far as it goes.
    """
    from diffcodec.bitstream.container import Container

    name = files.display_name(source)
    container = Container.open(files.read_bytes(source), name, pixel_limit=None)
    report = _report(container)
    if as_json:
        print(json.dumps({"file": name, **report}, indent=1))
    else:
        _print(name, report)


def _report(container: "Container") -> dict[str, Any]:
    from diffcodec.bitstream.header import VERSION, LastStage
    from diffcodec.units import bits_per_dimension

    header = container.header
    stored = header.last_stage is LastStage.STORED
    plan = {
        "model_id": header.model_id.hex(),
        "growth": (header.growth_index + 1) / 128,
        "parts": header.parts,
        "channel_code": header.channel_code,
        "final_step": header.final_step,
    }
    return {
        "format_version": VERSION,
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "last_stage": header.last_stage.name.lower(),
        **({} if stored else plan),
        "bytes": len(container.content),
        "whole_file_bytes": container.total_bytes,
        "bits_per_dimension": bits_per_dimension(8.0 * len(container.content), header.dimensions),
        "segments": [
            {
                "number": number,
                "name": segment.name,
                "offset": segment.offset,
                "bytes": segment.length_bytes,
                "bytes_found": segment.found_bytes,
                "bits_per_dimension": bits_per_dimension(
                    8.0 * segment.found_bytes, header.dimensions
                ),
                "check": _check(segment.check_ok),
            }
            for number, segment in enumerate(container.segments())
        ],
    }


def _check(check_ok: bool | None) -> str:
    return {True: "ok", False: "damaged", None: "cut short"}[check_ok]


def _print(name: str, report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    colours = "RGB" if report["channels"] == 3 else "gray"
    console.print(
        f"{name}: {report['width']}×{report['height']} {colours}, last stage "
        f"{report['last_stage']}, {report['bytes']} of {report['whole_file_bytes']} bytes, "
        f"{report['bits_per_dimension']:.3f} bits/dim, format {report['format_version']}",
        soft_wrap=True,
    )
    if "model_id" in report:
        console.print(
            f"model {report['model_id']}, channel code {report['channel_code']}, growth "
            f"{report['growth']:.4f}, parts {report['parts']}, final step {report['final_step']}",
            soft_wrap=True,
        )
    table = Table()
    table.add_column("", justify="right")
    table.add_column("segment")
    for heading in ("offset", "bytes", "bits", "bits/dim"):
        table.add_column(heading, justify="right")
    table.add_column("check")
    for segment in report["segments"]:
        table.add_row(
            str(segment["number"]),
            segment["name"],
            str(segment["offset"]),
            str(segment["bytes_found"]),
            str(8 * segment["bytes_found"]),
            f"{segment['bits_per_dimension']:.4f}",
            segment["check"],
        )
    console.print(table)
