"""``diffcodec info``: what a file holds and where its bits went."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from cli import files, options
from diffcodec.errors import BitstreamError

if TYPE_CHECKING:
    from rich.console import Console

    from diffcodec.bitstream.container import Container, SegmentInfo


@click.command("info")
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Decode a whole file and tell where every bit went: by hop, KL beside bits paid.",
)
@click.option("--model", metavar="M", help="With -v: the model that the file was encoded with.")
@options.max_pixels
def command(source: str, as_json: bool, verbose: bool, model: str | None, max_pixels: int) -> None:
    """Show a file's header, its segments and its bits by part.

    Without -v it needs no model and no memory for pixels, so any size is shown. A truncated or
    damaged file is shown as far as it goes. Where hops end is not told before them: of a file cut
    short or with damaged hops only -v and verify tell which it is, as an error after what is shown.
    """
    from diffcodec.bitstream.container import Container

    name = files.display_name(source)
    limit = max_pixels if verbose else None
    container = Container.open(files.read_bytes(source), name, pixel_limit=limit).by_its_checks()
    report = _report(container)
    failure = None
    if verbose:
        try:
            report["account"] = _account(container, name, model)
        except BitstreamError as error:
            # What there is of the file is shown all the same.
            report["account"], failure = None, error
    if as_json:
        print(json.dumps({"file": name, **report}, indent=1))
    else:
        _print(name, report)
    if failure is not None:
        raise failure


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
                "check": _check(segment),
            }
            for number, segment in enumerate(container.segments())
        ],
    }


def _account(container: "Container", name: str, model: str | None) -> dict[str, Any] | None:
    """None for stored pixels that are whole: their segments are all there is to tell."""
    from diffcodec.bitstream.header import LastStage
    from diffcodec.model.catalog import find_model, find_model_by_id

    header = container.header
    if header.last_stage is LastStage.STORED:
        from diffcodec.codec.account import whole_image

        whole_image(container, None)
        return None
    folder = find_model(model) if model else find_model_by_id(header.model_id, name)

    from diffcodec.codec.account import account_for
    from diffcodec.codec.model import load_codec_model

    return dataclasses.asdict(account_for(container, load_codec_model(folder)))


def _check(segment: "SegmentInfo") -> str:
    if segment.length_bytes is None:
        return "cut short or damaged"
    return {True: "ok", False: "damaged", None: "cut short"}[segment.check_ok]


def _print(name: str, report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    colours = "RGB" if report["channels"] == 3 else "gray"
    total = report["whole_file_bytes"]
    whole = "" if total is None else f" of {total}"
    console.print(
        f"{name}: {report['width']}×{report['height']} {colours}, last stage "
        f"{report['last_stage']}, {report['bytes']}{whole} bytes, "
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
    if report.get("account") is not None:
        _print_account(console, report["account"])


def _print_account(console: "Console", account: dict[str, Any]) -> None:
    from rich.table import Table

    hops = account["hops"]
    sums = {
        key: sum(hop[key] for hop in hops) for key in ("correction_bits", "code_bits", "kl_bits")
    }
    parts = (
        ("header", account["header_bits"], None),
        ("hops: corrections", sums["correction_bits"], None),
        ("hops: channel code", sums["code_bits"], sums["kl_bits"]),
        ("hops: padding", account["padding_bits"], None),
        ("last stage", account["last_stage_bits"], account["last_stage_ideal_bits"] or None),
        ("checks", account["check_bits"], None),
    )
    total = sum(bits for _, bits, _ in parts)
    table = Table()
    table.add_column("part")
    for heading in ("bits", "share", "ideal", "bits/ideal"):
        table.add_column(heading, justify="right")
    for name, bits, ideal in parts:
        told = ("", "") if ideal is None else (f"{ideal:.1f}", f"{bits / ideal:.4f}")
        table.add_row(name, str(bits), f"{bits / total:.2%}", *told)
    console.print(table)
    whose = "the image's own" if account["exact"] else "reckoned from what the file tells"
    table = Table(caption=f"KL: {whose}")
    for heading in ("t", "s", "packets", "KL", "correction", "code", "bits/KL"):
        table.add_column(heading, justify="right")
    for hop in hops:
        bits = hop["correction_bits"] + hop["code_bits"]
        table.add_row(
            *(str(hop[key]) for key in ("t", "s", "packets")),
            f"{hop['kl_bits']:.1f}",
            str(hop["correction_bits"]),
            str(hop["code_bits"]),
            f"{bits / hop['kl_bits']:.3f}",
        )
    console.print(table)
